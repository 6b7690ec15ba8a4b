"""A model as a folder to keep or to give away: weights, description, and a card in words."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helmol import __version__, hub, markdown
from helmol.damage import read_json
from helmol.digests import read_described
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.files import entries, replacing, write_text
from helmol.locks import Claim
from helmol.model.artifact import NAME, find_model, load_model
from helmol.shipped import CARD
from helmol.target import Domain

README = "README.md"
RUN_CARD = "card.md"


def export_model(source: Path | str, out: Path | str, *, licence: str | None = None) -> dict[str, Any]:
    """Write a model folder that stands alone; any verb and :func:`helmol.load` take it.

    ``model.safetensors`` and ``model.json`` are those of the source, byte by byte, after every tensor has
    been compared with its digest; ``card.json`` too if there is one. ``README.md`` says what the model knows,
    how it is used and, as far as the source tells, how large its errors are; its head is what the Hugging
    Face hub reads.

    Args:
        source: a run, a model folder, or a name (:func:`helmol.model.find_model`).
        out: the new folder, which may hold an export of before.
        licence: of the model, as the hub abbreviates it (``mit``, ``cc-by-4.0``); ``None``: not stated.

    Returns:
        ``out``, ``files``, ``bytes``, ``parameters``, ``level``, ``elements``, ``charges``.

    Raises:
        InputError: there is no model, it is damaged, or ``out`` holds something else.
        BusyError: another process writes there.
    """
    folder, out = find_model(source), Path(out)
    model = load_model(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = _readme(out.resolve().name, model.domain, parameters, licence, _errors(Path(source), folder))
    files = copy_model(folder, out, readme=text)
    return {
        "out": str(out),
        "files": [file.name for file in files],
        "bytes": sum(file.stat().st_size for file in files),
        "parameters": parameters,
        "level": model.domain.level.label,
        "elements": [SYMBOLS[z] for z in sorted(model.domain.basis.elements)],
        "charges": list(model.domain.charges),
    }


def copy_model(folder: Path, out: Path, *, readme: str | None = None) -> list[Path]:
    """Copy a model folder, every tensor compared with its digest; return the files.

    Args:
        folder: with ``model.safetensors`` and ``model.json``.
        out: the new folder, which may hold a model of before.
        readme: text of ``README.md``; ``None``: that of ``folder``, if it has one.

    Raises:
        InputError: the model is damaged, or ``out`` holds something else.
        BusyError: another process writes there.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a new folder")
    if out.resolve() == folder.resolve():
        raise InputError(f"{out} is the model itself: give a new folder")
    read_described(folder, NAME)
    with Claim(out, folder=True):
        if strange := [path.name for path in entries(out) if path.name not in hub.FILES]:
            raise InputError(f"{out} holds {strange[0]}, which is no part of a model: give a new folder")
        # What says that there is a model goes first and comes last.
        for name in reversed(hub.FILES):
            (out / name).unlink(missing_ok=True)
        if readme is not None:
            write_text(out / README, readme)
        for name in reversed(hub.FILES):
            if (folder / name).is_file() and not (out / name).exists():
                with replacing(out / name) as temporary:
                    shutil.copyfile(folder / name, temporary)
    return [out / name for name in hub.FILES if (out / name).is_file()]


def _readme(name: str, domain: Domain, parameters: int, licence: str | None, errors: str) -> str:
    """Return the card in words, with the head that the hub reads."""
    head = ["---", "library_name: helmol", "tags:", "- chemistry", "- density-functional-theory"]
    if licence:
        head.insert(1, f"license: {licence}")
    rows = [
        ("level of theory", domain.level.label),
        ("elements", " ".join(SYMBOLS[z] for z in sorted(domain.basis.elements))),
        ("charges; spins 2S", f"{_listed(domain.charges)}; {_listed(domain.spins)}"),
        ("predicts", f"`{domain.target}`"),
        ("parameters", f"{parameters:,}"),
        ("licence", licence or "not stated"),
    ]
    use = (
        "```python\nimport helmol\n\n"
        f'model = helmol.load("{name}")      # this folder, or hf://OWNER/NAME\n'
        "prediction = model.predict(molecule)\n```\n"
    )
    lines = [*head, "---", f"# {name}", "", f"A model of helmol {__version__}.", ""]
    lines += [markdown.table(["", ""], rows), "", use]
    return "\n".join(lines) + (f"\n{errors}" if errors else "")


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in numbers)


def _errors(source: Path, folder: Path) -> str:
    """Return what is known of the errors: of a model that comes with helmol, or the card of a run."""
    if (folder / CARD).is_file():
        return _of_tests(read_json(folder / CARD))
    card = source / RUN_CARD
    if not card.is_file():
        return ""
    return f"## Of the training\n\n{card.read_text(encoding='utf-8').partition(chr(10))[2].strip()}\n"


def _of_tests(card: Mapping[str, Any]) -> str:
    """Return the errors of a model on molecules that it has not seen."""
    tests = card["tests"]
    keys = [key for key in tests[0]["model"] if all(key in test["model"] for test in tests)]
    rows = [[f"`{key}`", *(float(test["model"][key]) for test in tests)] for key in keys]
    columns = ["", *(f"{test['name']} ({test['n_molecules']} molecules)" for test in tests)]
    return f"## Errors on molecules it has not seen\n\n{markdown.table(columns, rows)}\n"
