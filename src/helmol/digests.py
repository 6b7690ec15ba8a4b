"""Tensors in a safetensors file and their description in JSON beside it, which knows their digests.

safetensors checks lengths, not content, and JSON nothing: one changed bit of a weight is another model. So
the description holds a digest of every tensor and one of itself. They tell of damage and of edits by hand,
not of forgery.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

from helmol.damage import read_json, understood
from helmol.errors import HelmolError, InputError
from helmol.files import plain, replacing, write_json

TENSORS, ITSELF = "digests", "digest"
"""Keys of the description: the digests by name of tensor, and that of all else in the description."""


def tensor_digests(data: bytes) -> dict[str, str]:
    """Return the digest of every tensor in the content of a safetensors file.

    A digest is of type, shape and bytes: BLAKE2b of 16 bytes, in hexadecimal digits.

    Raises:
        ValueError: not the content of a safetensors file.
    """
    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    found = {}
    for name, entry in tensors:
        digest = hashlib.blake2b(f"{entry['dtype']} {list(entry['shape'])}\n".encode(), digest_size=16)
        digest.update(entry["data"])
        found[name] = digest.hexdigest()
    return found


def write_described(folder: Path, name: str, tensors: bytes, description: Mapping[str, Any]) -> None:
    """Write ``NAME.safetensors`` and ``NAME.json``, each atomically, the description last.

    Args:
        folder: made if it is not there.
        name: of both files.
        tensors: what ``safetensors.torch.save`` returned.
        description: JSON-able; the digests are added.
    """
    with replacing(folder / f"{name}.safetensors") as path:
        path.write_bytes(tensors)
    write_description(folder / f"{name}.json", {**description, TENSORS: tensor_digests(tensors)})


def write_description(path: Path, description: Mapping[str, Any]) -> None:
    """Write a description (again) with the digest of itself; digests of tensors in it stay."""
    data = plain({key: value for key, value in description.items() if key != ITSELF})
    write_json(path, {**data, ITSELF: _digest(data)})


def read_description(path: Path, *, error: type[HelmolError] = InputError) -> dict[str, Any]:
    """Return a description without its digest; one of before there were digests is taken as it is.

    Raises:
        error: missing, no JSON, or changed since it was written.
    """
    data = read_json(path, error=error)
    digest = data.pop(ITSELF, None)
    if (digest is not None or TENSORS in data) and digest != _digest(data):
        raise error(f"{path} has changed since it was written: damaged, or edited by hand")
    return data


def read_described(
    folder: Path, name: str, *, error: type[HelmolError] = InputError
) -> tuple[bytes, dict[str, Any]]:
    """Return the content of ``NAME.safetensors``, checked, and the description without digests.

    Raises:
        error: a file is missing, damaged, or not of the other; changed tensors are named.
    """
    description = read_description(folder / f"{name}.json", error=error)
    path = folder / f"{name}.safetensors"
    with understood(str(path), error):
        data = path.read_bytes()
        found = tensor_digests(data)
        wanted = description.pop(TENSORS, None)
        if wanted is not None and wanted != found:
            raise error(_differences(path, dict(wanted), found))
    return data, description


def _differences(path: Path, wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Say which tensors are not those that were written."""
    for names, what in (
        (wanted.keys() - found.keys(), "lacks"),
        (found.keys() - wanted.keys(), "has, and should not have,"),
        ({name for name in wanted if wanted[name] != found.get(name)}, "has changed since it was written in"),
    ):
        if names:
            few = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            return f"{path} {what} {few}: the file is damaged, or of another {path.stem}.json"
    return f"{path} is not that of {path.stem}.json"


def _digest(data: Mapping[str, Any]) -> str:
    """Return the digest of a JSON-able mapping, whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=16).hexdigest()
