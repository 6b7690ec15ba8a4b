"""Model folders on the Hugging Face hub: fetched by name into its cache, and put there.

Knows: names ``hf://OWNER/NAME[@REVISION]``, the hub's own library. Does not know: torch, what a model is.

Nothing is fetched but the files of a model folder, and nothing in them is executed. The cache is the hub's
own (``HF_HOME``), as are addresses of other servers (``HF_ENDPOINT``), tokens, and working without a network
(``HF_HUB_OFFLINE``).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from helmol.damage import one_line
from helmol.errors import InputError

PREFIX = "hf://"
ENERGY_FILE = "energy.json"
FILES = ("model.safetensors", "model.json", ENERGY_FILE, "card.json", "README.md")
"""Of a model folder; the first two make a model."""

_NAME = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,200}))?")
"""A path loses one of the two slashes."""


class HubName(NamedTuple):
    """A model on the hub.

    Attributes:
        repo: ``OWNER/NAME``.
        revision: branch, tag or commit, ``None`` for the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        """Return the name as a user gives it."""
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def hub_name(text: Path | str) -> HubName | None:
    """Return the name of a model on the hub, ``None`` for any other text or path.

    Raises:
        InputError: it begins as such a name and is none.
    """
    if not str(text).startswith("hf:/"):
        return None
    match = _NAME.fullmatch(str(text))
    if match is None:
        raise InputError(
            f"{str(text)!r} is no name of a model on the hub: expected {PREFIX}OWNER/NAME[@REVISION]"
        )
    return HubName(match["repo"], match["revision"])


def fetch(name: HubName, *, renew: bool = True) -> Path:
    """Return the folder of a model on the hub, fetched if it has to be.

    Args:
        name: of the model.
        renew: whether to ask the hub for a newer version; else a copy of before is taken as it is.

    Raises:
        InputError: there is no such model, no network, or ``huggingface_hub`` is not installed.
    """
    hub = _library()
    if not renew:
        try:
            return _whole(hub.snapshot_download(**_wanted(name), local_files_only=True), name)
        except (hub.errors.LocalEntryNotFoundError, InputError):
            pass
    with _explained(hub, name):
        return _whole(hub.snapshot_download(**_wanted(name)), name)


def push(folder: Path, name: HubName) -> str:
    """Put a model folder on the hub, which is created there if it has to be; return where it is.

    Raises:
        InputError: the hub cannot be reached, refuses, or ``huggingface_hub`` is not installed.
    """
    hub = _library()
    with _explained(hub, name):
        api = hub.HfApi()
        api.create_repo(name.repo, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name.repo,
            folder_path=folder,
            allow_patterns=list(FILES),
            revision=name.revision,
            commit_message="Model of helmol",
        )
    return str(commit.commit_url)


def _wanted(name: HubName) -> dict[str, Any]:
    """Return what is asked of the hub."""
    return {"repo_id": name.repo, "revision": name.revision, "allow_patterns": list(FILES)}


def _whole(folder: str, name: HubName) -> Path:
    """Return a folder that was fetched.

    Raises:
        InputError: it holds no model.
    """
    if missing := [file for file in FILES[:2] if not (Path(folder) / file).is_file()]:
        raise InputError(f"{name} is no model of helmol: it has no {' and no '.join(missing)}")
    return Path(folder)


def _library() -> Any:
    """Return the hub's library.

    Raises:
        InputError: it is not installed.
    """
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError("models on the hub need huggingface_hub: pip install 'helmol[hub]'") from error


@contextmanager
def _explained(hub: Any, name: HubName) -> Iterator[None]:
    """Say in one line what the hub, or the way to it, objects to."""
    try:
        yield
    except InputError:
        raise
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        raise InputError(
            f"the hub has no {name}, or it is private: 'hf auth login' makes you known there"
        ) from error
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = one_line(error, longest=300)
        raise InputError(f"{name}: the hub cannot be used: {reason}") from error
