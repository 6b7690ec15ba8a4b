"""A small server that speaks the part of the Hugging Face hub's protocol that helmol needs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Repos = dict[str, dict[str, bytes]]
Answer = tuple[int, Any, dict[str, str]]


def version(files: dict[str, bytes]) -> str:
    """Return the commit of some content."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name in sorted(files):
        digest.update(name.encode() + files[name])
    return digest.hexdigest()


def missing(code: str) -> Answer:
    return 404, {"error": code}, {"X-Error-Code": code}


class Hub:
    """Repositories by name (path: content), and what was asked for."""

    def __init__(self, repos: Repos) -> None:
        self.repos, self.asked = repos, list[str]()

    def get(self, path: str) -> Answer:
        if match := re.fullmatch(r"/api/models/(.+?)/revision/(\w+)", path):
            return self._revision(*match.groups())
        if match := re.fullmatch(r"/api/models/(.+?)/tree/\w+", path):
            files = self.repos[match[1]]
            found = [(name, len(files[name]), version({name: files[name]})) for name in files]
            return 200, [{"type": "file", "path": n, "size": size, "oid": oid} for n, size, oid in found], {}
        if match := re.fullmatch(r"/(.+?)/resolve/\w+/([\w.]+)", path):
            content = self.repos[match[1]][match[2]]
            tag, commit = hashlib.sha256(content).hexdigest(), version(self.repos[match[1]])
            return 200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": commit}
        return missing("EntryNotFound")

    def _revision(self, name: str, wanted: str) -> Answer:
        if name not in self.repos:
            return missing("RepoNotFound")
        sha = version(self.repos[name])
        if wanted not in ("main", sha):
            return missing("RevisionNotFound")
        return 200, {"id": name, "sha": sha, "siblings": [{"rfilename": f} for f in self.repos[name]]}, {}

    def post(self, path: str, body: bytes, host: str) -> Answer:
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.repos.setdefault(name, {})
            return 200, {"url": f"{host}/{name}"}, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if re.fullmatch(r"/api/models/.+/preupload/main", path):
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            return 200, {"files": modes}, {}
        if match := re.fullmatch(r"/api/models/(.+?)/commit/main", path):
            for entry in map(json.loads, filter(None, body.splitlines())):
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.repos[match[1]][entry["value"]["path"]] = content
            sha = version(self.repos[match[1]])
            url = f"{host}/{match[1]}/commit/{sha}"
            return 200, {"commitOid": sha, "commitUrl": url, "pullRequestUrl": None}, {}
        return missing("EntryNotFound")


@contextmanager
def served(repos: Repos) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories, which may be changed meanwhile; yield the address and what was asked."""
    hub = Hub(repos)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def send(self, status: int, data: Any, headers: dict[str, str]) -> None:
            body = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            self.send(*hub.get(self.path.partition("?")[0]))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            hub.asked.append(f"POST {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send(*hub.post(self.path.partition("?")[0], body, f"http://{self.headers['Host']}"))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hub.asked
    finally:
        server.shutdown()
        server.server_close()
