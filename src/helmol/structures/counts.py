"""Numbers of atoms that an xyz file states, compared with its lines before anything is made of them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from helmol.errors import InputError

LONGEST_COUNT = 1000
"""Bytes of the line with the number of atoms that are looked at."""


def check_counts(path: Path) -> None:
    """Refuse an xyz file that states more atoms than it has lines; ASE would look for them for minutes.

    Frames are followed as far as each begins with a number alone: what else may stand in such files is
    left to their reader.

    Raises:
        InputError: names the frame, the number and what is there.
    """
    frame, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while words := file.readline(LONGEST_COUNT).split():
            try:
                n = int(words[0])
            except ValueError:
                return
            frame += 1
            # The comment, and the atoms; a count beyond the file's size is none.
            there = sum(1 for _ in islice(file, min(max(n, 0), size) + 1)) - 1
            if n < 0 or there < n:
                raise InputError(
                    f"{path}, frame {frame}: expected {n:,} lines of atoms, {max(there, 0):,} follow"
                )
