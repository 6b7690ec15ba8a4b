"""From what a user names to files: a file, a folder, a pattern, or several of these."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from helmol.errors import InputError
from helmol.files import entries, is_temporary
from helmol.letters import text_of

PathLike = str | os.PathLike[str]
"""A path as users have it."""

Places = PathLike | Iterable[PathLike]
"""One or several paths or patterns."""

log = logging.getLogger("helmol")


def as_list(places: Places) -> list[Path]:
    """Return one path or several as a list.

    Raises:
        InputError: none at all.
    """
    several = [places] if isinstance(places, (str, os.PathLike)) else list(places)
    if not several:
        raise InputError("no file was named")
    return [Path(place) for place in several]


def files_at(places: Places, *, suffixes: Collection[str], what: str = "structure files") -> list[Path]:
    """Return the files that names, folders and patterns stand for.

    Args:
        places: a file is taken whatever its suffix; of a folder the files with one of ``suffixes``, in the
            order of their names (what lies deeper is left alone); a pattern (``*``, ``?``, ``[ab]``, ``**``
            for any depth) stands for all files that match it.
        suffixes: lower case, with the dot.
        what: is looked for, for messages.

    Returns:
        Each file once, in the order they were named.

    Raises:
        InputError: a name that does not exist, or a folder or pattern without such files.
    """
    found: dict[str, Path] = {}
    for place in as_list(places):
        for path in _files(place, suffixes, what):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def has_pattern(place: PathLike) -> bool:
    """Return whether a name that does not exist as it stands is a pattern."""
    return glob.has_magic(os.fspath(place)) and not os.path.lexists(place)


def _files(place: Path, suffixes: Collection[str], what: str) -> list[Path]:
    """Return the files that one name stands for."""
    if has_pattern(place):
        matching = (Path(path) for path in sorted(glob.glob(os.fspath(place), recursive=True)))
        found = [path for path in matching if path.is_file() and not is_temporary(path.name)]
        if not found:
            raise InputError(f"no file matches {text_of(place)}")
        return found
    if not place.is_dir():
        if not place.exists():
            raise InputError(f"{text_of(place)} does not exist: expected {what}")
        return [place]
    there = [path for path in entries(place) if path.is_file()]
    found = [path for path in there if path.suffix.lower() in suffixes]
    if not found:
        raise InputError(f"the folder {text_of(place)} holds no {what} ({' '.join(sorted(suffixes))})")
    others = Counter(path.suffix or path.name for path in there if path.suffix.lower() not in suffixes)
    if others:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items())[:5])
        log.info("%s: %d other files are left alone (%s)", text_of(place), others.total(), kinds)
    return found
