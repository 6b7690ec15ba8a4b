"""What is on disk of a data set in the making: the store, the failures, the spec."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from helmol.damage import read_json
from helmol.errors import InputError, StoreError
from helmol.files import beside, plain, write_json, write_text
from helmol.generate.plans import formula
from helmol.generate.spec import continues, difference
from helmol.generate.worker import Outcome
from helmol.store import Store
from helmol.system import Sample

SPEC = ".spec.json"
"""Suffix of the file that says what a store was begun with."""

SAMPLES_PER_APPEND = 16
SECONDS_BETWEEN_APPENDS = 5.0

log = logging.getLogger("helmol.generate")


def check_spec(out: Path, identity: dict[str, Any]) -> bool:
    """Compare a spec with the one that a store was begun with, and write it down if there is none.

    Returns:
        Whether this continues earlier work.

    Raises:
        InputError: the store was made from another spec, or by something else.
    """
    path, identity = beside(out, SPEC), plain(identity)
    old = None
    if path.exists():
        try:
            old = read_json(path)
        except InputError as error:
            raise InputError(f"{error}; what {out} was begun with is not known: delete both") from error
    if old is not None and continues(old, identity):
        return True
    if out.exists():
        if old is None:
            raise InputError(f"{out} exists and was not made by 'helmol generate': choose another --out")
        changed = "; ".join(difference(old, identity)[:3])
        raise InputError(f"{out} was begun with another spec ({changed}): choose another --out or delete it")
    for stale in (".structures.extxyz", ".failed.jsonl"):
        beside(out, stale).unlink(missing_ok=True)
    write_json(path, identity)
    return False


def begun_references(out: Path, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return the references that a store was begun with, or a default for a new one."""
    path = beside(out, SPEC)
    # A damaged file is named where specs are compared.
    with suppress(InputError, TypeError, AttributeError):
        if path.exists():
            return tuple(read_json(path).get("references", default))
    return default


class Records:
    """Collect outcomes and write them in small batches; a context manager.

    Leaving the block writes what is finished, also after Ctrl-C.
    """

    def __init__(self, store: Store, out: Path, *, retry_failed: bool = False) -> None:
        self.store, self._failed_path = store, beside(out, ".failed.jsonl")
        self._pending: list[Sample] = []
        self._last = time.monotonic()
        if retry_failed:
            self._failed_path.unlink(missing_ok=True)
        self.failed = _read_failed(self._failed_path)

    def add(self, outcome: Outcome) -> None:
        """Take one outcome."""
        if outcome.sample is not None:
            self._pending.append(outcome.sample)
        else:
            self._fail(outcome)

    def flush(self, *, force: bool = False) -> None:
        """Append what is pending if there is enough of it or it has waited long enough."""
        due = time.monotonic() - self._last > SECONDS_BETWEEN_APPENDS
        if self._pending and (force or due or len(self._pending) >= SAMPLES_PER_APPEND):
            # After an interrupted append some may be in the store already.
            self.store.append([sample for sample in self._pending if sample.id not in self.store])
            self._pending.clear()
            self._last = time.monotonic()

    def _fail(self, outcome: Outcome) -> None:
        """Write a failure down."""
        entry = {
            "id": outcome.work.id,
            "formula": formula(outcome.work),
            "reason": outcome.reason,
            "seconds": round(outcome.seconds, 1),
        }
        log.info("%s (%s) failed: %s", entry["id"], entry["formula"], entry["reason"])
        with self._failed_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.failed[outcome.work.id] = entry

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush(force=True)
        else:
            # The first error is the one to report.
            with suppress(OSError, StoreError):
                self.flush(force=True)


def _read_failed(path: Path) -> dict[str, dict[str, Any]]:
    """Read the failures by id; a last line that a killed process left half-written is dropped."""
    if not path.exists():
        return {}
    entries = {}
    for line in path.read_bytes().decode(errors="replace").splitlines():
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            entry = json.loads(line)
            entries[str(entry["id"])] = entry
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries.values()))
    return entries
