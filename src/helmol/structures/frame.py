"""One geometry of a foreign file as ASE reads it, with what ASE has no place for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from helmol.structures.state import Statement


@dataclass(frozen=True)
class Frame:
    """Hold one geometry before it becomes a molecule.

    Attributes:
        atoms: ``ase.Atoms``.
        words: what else is worth keeping in the provenance.
        stated: what places of the format's own say about charge and spin.
    """

    atoms: Any
    words: dict[str, object] = field(default_factory=dict)
    stated: tuple[Statement, ...] = ()
