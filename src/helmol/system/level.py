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
        auxbasis: auxiliary basis of density fitting: the name of a set, or ``"H C: one; K: other"``; ``None``
            without fitting and in data of before this was written down.
        dispersion: name of the empirical dispersion in energies and forces, ``None`` if they have none.
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
    auxbasis: str | None = None
    dispersion: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary with the attribute names as keys.

        The last two only where they say something, so that hashes of data without them stay.
        """
        data = asdict(self)
        return {k: v for k, v in data.items() if v is not None or k not in ("auxbasis", "dispersion")}

    def differences(self, other: LevelOfTheory) -> str:
        """Return what differs, e.g. ``"grid_level 3, now 4; code pyscf 2.13.0, now pyscf 2.14.0"``."""
        new = asdict(other)
        return "; ".join(f"{k} {v}, now {new[k]}" for k, v in asdict(self).items() if v != new[k])

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LevelOfTheory:
        """Rebuild from :meth:`to_json`."""
        return cls(**data)

    @property
    def n_spins(self) -> int:
        """Fock matrices per molecule: 2 unrestricted, else 1."""
        return 2 if self.method == "uks" else 1

    @property
    def label(self) -> str:
        """Short human name, e.g. ``RKS PBE/def2-svp``."""
        added = "" if self.dispersion is None else f" with {self.dispersion} dispersion"
        return f"{self.method.upper()} {self.xc.upper()}/{self.basis}{added}"
