"""What was left out of the work, with place and reason: one record, whatever the work is.

One molecule that cannot be used does not end the work on the others. It is named in the result (``skipped``),
counted (``n_skipped``), shown in a table by the command line, and told by the exit code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from helmol import errors
from helmol.damage import DAMAGE, one_line
from helmol.errors import BusyError, HelmolError, InputError
from helmol.letters import text_of

FAULTS = (HelmolError, *DAMAGE)
"""What one bad item raises. Not ``OSError``: a full disk is everybody's."""

LONGEST_REASON = 500


@dataclass(frozen=True)
class Skipped:
    """Say what was left out, and why.

    Attributes:
        item: id of the molecule; of a file that cannot be read, its name.
        file: where it stands, ``None`` for a molecule that a recipe makes.
        row: where in the file: frame from 1 in a structure file, line from 1 in a file of SMILES, row from 0
            in a store, key or group in a published file; ``None`` for the whole file.
        reason: one line.
    """

    item: str
    file: str | None
    row: int | str | None
    reason: str

    def __str__(self) -> str:
        """Return place, item and reason in one line."""
        row = "" if self.row is None else f", row {self.row}"
        where = "" if self.file is None else f"{self.file}{row}, "
        return f"{where}{self.item!r}: {self.reason}"


class Skips:
    """Collect what is left out, or end the work at the first of it.

    Args:
        strict: whether the first item that cannot be used is an error.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._raised: HelmolError | None = None
        self._found: dict[Skipped, type[HelmolError]] = {}

    def add(
        self,
        error: BaseException,
        *,
        item: str,
        file: str | os.PathLike[str] | None = None,
        row: int | str | None = None,
    ) -> None:
        """Leave an item out; the same one for the same reason counts once.

        Raises:
            HelmolError: of the kind of ``error``, if this is strict.
            BusyError: as it is: what another process holds is no fault of an item.
        """
        if isinstance(error, BusyError) or error is self._raised:
            raise error
        kind = _kind(error)
        text = one_line(error, longest=LONGEST_REASON)
        entry = Skipped(item, None, row, text)
        if file is not None:
            entry = Skipped(item, text_of(file), row, _without(os.fspath(file), text))
        if self._strict:
            self._raised = kind(str(entry))
            raise self._raised from error
        self._found.setdefault(entry, kind)

    @property
    def found(self) -> list[Skipped]:
        """What was left out, in order."""
        return list(self._found)

    def refuse_nothing_left(self, n_left: int, *, what: str = "molecules") -> None:
        """Raise the first fault if there is nothing left to work on.

        Raises:
            HelmolError: of the kind of the first fault; says how many there were.
        """
        if n_left or not self._found:
            return
        first, kind = next(iter(self._found.items()))
        n = len(self._found)
        raise kind(str(first) if n == 1 else f"none of {n} {what} can be used; the first: {first}")

    def json(self) -> dict[str, Any]:
        """Return the keys of a result: ``n_skipped`` and ``skipped``."""
        return {"n_skipped": len(self._found), "skipped": [asdict(entry) for entry in self._found]}


def joined(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``n_skipped`` and ``skipped`` of several results on the same items, each entry once."""
    entries = {Skipped(**entry): entry for result in results for entry in result["skipped"]}
    return {"n_skipped": len(entries), "skipped": list(entries.values())}


def _kind(error: BaseException) -> type[HelmolError]:
    """Return the exception of :mod:`helmol.errors` that an error is one of; foreign ones are InputErrors."""
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return next(kinds, InputError)


def _without(place: str, text: str) -> str:
    """Return a message without the file and the place in it that it begins with: they stand beside it."""
    begin = re.match(rf"(?:store |cannot read )?{re.escape(place)}(?:, .*?)?: ", text)
    return text[begin.end() :] if begin else text
