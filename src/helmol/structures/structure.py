"""A named geometry and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from helmol.system import Molecule


@dataclass(frozen=True)
class Structure:
    """Hold one molecule with a name that stays the same from run to run.

    Attributes:
        id: unique within a data set; the id of its sample and of its result files.
        molecule: nuclei, charge, spin.
        provenance: where the geometry came from; JSON-able.
    """

    id: str
    molecule: Molecule
    provenance: Mapping[str, object] = field(default_factory=dict)
