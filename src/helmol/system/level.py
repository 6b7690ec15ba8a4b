"""The level of theory at which labels were made: part of every store and every model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LevelOfTheory:
    """Name a level of theory so that two data sets can be told apart.

    Attributes:
        method: ``"rks"`` or ``"uks"``.
        xc: functional as the user wrote it, lower case (``"pbe"``, ``"b3lyp5"``, ``"hf"``).
        xc_resolved: the functional's components as libxc resolved them, e.g. ``"1*101 + 1*130"``.
            Equality of functionals is judged on this, because names change meaning.
        basis: name of the basis, lower case (``"def2-svp"``); judged by the hashes of
            :class:`helmol.basis.BasisSet`, not by this name.
        ecp: name of the effective core potential, or ``None``.
        grid_level: PySCF grid level (0–9).
        density_fit: whether Coulomb (and exchange) were density-fitted.
        conv_tol: SCF energy threshold, Eh.
        code: program and version, e.g. ``"pyscf 2.14.0"``.
    """

    method: str
    xc: str
    xc_resolved: str
    basis: str
    ecp: str | None
    grid_level: int
    density_fit: bool
    conv_tol: float
    code: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary with the attribute names as keys."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LevelOfTheory:
        """Rebuild from :meth:`to_json`."""
        return cls(**data)

    @property
    def label(self) -> str:
        """Short human name, e.g. ``RKS PBE/def2-svp``."""
        return f"{self.method.upper()} {self.xc.upper()}/{self.basis}"
