"""A short ``repr`` for records of arrays: what they hold and how large it is, not the numbers.

Use in the body of a dataclass: ``__repr__ = brief``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

LONGEST = 120
"""Characters of one value at most."""
LONGEST_RECORD = 160
"""Characters of a record in a record at most; a longer one is shown by its name alone."""
FEW = 6
"""Entries of a list or mapping that are shown one by one."""


def brief(record: Any) -> str:
    """Return the name of a dataclass with what its fields hold; those that are ``None`` are left out."""
    values = {field.name: getattr(record, field.name) for field in fields(record) if field.repr}
    words = [f"{name}={word(value)}" for name, value in values.items() if value is not None]
    return f"{type(record).__name__}({', '.join(words)})"


def word(value: Any) -> str:
    """Return a value in few characters: of an array kind and shape, of a long list how many there are."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind, shape = str(value.dtype).removeprefix("torch."), ", ".join(map(str, value.shape))
        return f"{kind}[{shape}]" if shape else f"{value.item():.6g}"
    if isinstance(value, Mapping):
        return _some([f"{key}: {word(one)}" for key, one in list(value.items())[:FEW]], len(value), "{}")
    if isinstance(value, (list, tuple)):
        ends = "()" if isinstance(value, tuple) else "[]"
        return _some([word(one) for one in value[:FEW]], len(value), ends)
    if isinstance(value, float):
        return f"{value:.8g}"
    text = repr(value)
    if is_dataclass(value):
        return text if len(text) <= LONGEST_RECORD else f"{type(value).__name__}(…)"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _some(entries: list[str], total: int, ends: str) -> str:
    """Return all entries if they are few and short, else how many there are."""
    text = ", ".join(entries)
    whole = total <= FEW and len(text) <= LONGEST
    return f"{ends[0]}{text if whole else f'{total} entries'}{ends[1]}"
