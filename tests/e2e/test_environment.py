"""Work in a locale that is not UTF-8, on files with names and text in other alphabets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from helmol.store import Store
from toy_store import make_store, settings

# A file that helmol opens in whatever encoding the locale has is an error; one process calls all verbs.
FORMATS = ("npz", "extxyz", "qh9")
SCRIPT = """
import json, locale, os, sys, warnings
assert locale.getencoding().lower() in ("ascii", "us-ascii", "ansi_x3.4-1968")
assert sys.getfilesystemencoding() == "ascii"
warnings.filterwarnings("error", category=EncodingWarning, module=r"helmol\\..*")
from helmol.cli.main import main
if __name__ == "__main__":
    for words in json.load(open("calls.json", encoding="ascii")):
        # As the words come from a shell.
        try:
            main([os.fsdecode(word.encode("latin-1")) for word in words])
        except SystemExit as stop:
            print("code", stop.code, flush=True)
"""


def call(folder: Path, *calls: list[object]) -> subprocess.CompletedProcess[bytes]:
    """Run verbs in the locale C, without Python's remedies for it."""
    words = [[os.fsencode(str(word)).decode("latin-1") for word in call] for call in calls]
    (folder / "calls.json").write_text(json.dumps(words), encoding="ascii")
    (folder / "run.py").write_text(SCRIPT, encoding="ascii")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    environment |= {
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNDEFAULTENCODING": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(folder / "run.py")],
        check=False, capture_output=True, cwd=folder, env=environment, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Logging error" not in done.stderr
    return done


def codes(done: subprocess.CompletedProcess[bytes]) -> list[bytes]:
    """Return the exit codes of the verbs."""
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(b"code ")]


def test_labels_from_files_with_any_name(tmp_path: Path) -> None:
    frames = "2\nsmiles=[HH] comment=µÅ\nH 0 0 0\nH 0 0 0.74\n1\n\nX 0 0 0\n"
    (tmp_path / "水.xyz").write_text(frames, encoding="utf-8")
    spec = {"structures": {"files": ["水.xyz"]}, "level": {"xc": "hf", "basis": "sto-3g"}}
    (tmp_path / "ß.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    done = call(
        tmp_path,
        ["generate", "ß.yaml", "--out", "wasser-é.h5", "--workers", 1, "--json", "ü.json"],
        ["inspect", "wasser-é.h5", "--out", "karte"],
        *(["convert", "wasser-é.h5", "--to", to, "--out", f"aus-{to}-ß"] for to in FORMATS),
        *(["convert", f"aus-{to}-ß", "--to", "store", "--out", f"{to}-é.h5"] for to in FORMATS),
        ["inspect", "nichts-é.h5"],
        ["inspect", "\udcff.h5"],
    )
    assert codes(done) == [b"3", *[b"0"] * 7, b"1", b"1"], done.stderr
    with Store.open(tmp_path / "wasser-é.h5") as store:
        assert store.ids == ["水-00000"]
        assert store.provenance(0)["comment"] == "µÅ"
        assert store.provenance(0)["source"] == "水.xyz"
        content = store.content_hash
    for to in FORMATS:
        with Store.open(tmp_path / f"{to}-é.h5") as store:
            assert store.content_hash == content
    result = json.loads((tmp_path / "ü.json").read_text(encoding="utf-8"))
    assert [(entry["item"], entry["file"]) for entry in result["skipped"]] == [("水-00001", "水.xyz")]
    assert "wasser-é" in (tmp_path / "karte" / "card.md").read_text(encoding="utf-8")
    assert (tmp_path / "aus-npz-ß" / "水-00000.npz").is_file()
    # Bytes that are no letters are shown, too.
    *_, first, second = done.stderr.splitlines()
    assert first.decode().endswith("nichts-é.h5 does not exist")
    assert second.endswith(b"store \\xff.h5 does not exist")


def test_a_run_in_a_folder_with_any_name(tmp_path: Path) -> None:
    make_store(tmp_path / "daten-é.h5")
    keys = settings(Path("daten-é.h5"), max_steps=2, validate_every=2, checkpoint_every=2)
    (tmp_path / "lauf-ä.yaml").write_text(yaml.safe_dump(keys, allow_unicode=True), encoding="utf-8")
    done = call(
        tmp_path,
        ["train", "lauf-ä.yaml"],
        ["train", "lauf-ä.yaml", "--set", "run.checkpoint_every=3"],
        ["evaluate", "runs/lauf-ä", "daten-é.h5"],
        ["embed", "runs/lauf-ä", "daten-é.h5", "--split", "all"],
    )
    assert codes(done) == [b"0"] * 4, done.stderr
    # The same command finds the same run.
    assert b"was finished already" in done.stdout
    run = tmp_path / "runs" / "lauf-ä"
    for words in ("daten-é.h5", "# lauf-ä", "µEh"):
        assert words in (run / "card.md").read_text(encoding="utf-8")
    for name in ("config.yaml", "log.txt", "split.json"):
        text = (run / name).read_text(encoding="utf-8")
        assert "\\udc" not in text.lower()
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["store"] == "daten-é.h5"
    assert "lauf-ä" in json.loads((run / "embedding" / "embedding.json").read_text())["models"]
