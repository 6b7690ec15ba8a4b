"""The level of theory: what a user may set, and what it means to libxc."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, Literal

import pyscf
from pydantic import Field, field_validator, model_validator
from pyscf.dft import libxc
from pyscf.scf.dispersion import parse_disp

from helmol.config import Config
from helmol.dft.presets import LEVEL_PRESETS
from helmol.errors import InputError
from helmol.system import LevelOfTheory

CHAI_HEAD_GORDON = "chai-head-gordon"
"""Stored name of the empirical dispersion in :mod:`helmol.dft.dispersion`."""

EVEN_TEMPERED = "even-tempered"
"""Name of the auxiliary basis that PySCF makes from the exponents of the basis."""


class LevelConfig(Config):
    """Set the level of theory of the labels.

    ``level: NAME``, or ``preset: NAME`` among its keys, starts from the level of a published data set:
    ``md17``, ``qh9``, ``nabladft``, ``omol``, or from ``fast`` (density fitting); further keys override it.
    """

    xc: str = "pbe"
    """Functional in PySCF's notation (``pbe``, ``b3lyp5``, ``HYB_GGA_XC_WB97X_D``), or ``hf``.
    PySCF's ``b3lyp`` changed meaning in version 2.3; ``b3lyp5`` is the older one."""

    basis: str = "def2-svp"
    """Name of a basis set that PySCF knows."""

    ecp: str | None = "auto"
    """Effective core potentials: ``auto`` takes those of the same name as the basis for the
    elements that have one, ``null`` none, else the name of a set. PySCF alone would silently run
    heavy elements all-electron on a valence basis."""

    method: Literal["auto", "rks", "uks"] = "auto"
    """Restricted or unrestricted Kohn–Sham; ``auto`` takes ``uks`` for open shells."""

    grid_level: int = Field(default=3, ge=0, le=9)
    """PySCF's grid level. Functionals with a VV10 part get level 0 for that part: level 3 costs
    60 times more and moves the potential by 5e-7 Eh on average."""

    dispersion: Literal["auto"] | None = "auto"
    """Empirical dispersion, a part of energies and forces but not of the Fock matrix: ``auto`` takes what
    the name of the functional stands for (that of ωB97X-D; ``b3lyp-d3bj`` and the like need
    pyscf-dispersion), ``null`` leaves it out."""

    density_fit: bool = False
    """Whether to fit densities in Coulomb and exchange."""

    auxbasis: str = "auto"
    """Auxiliary basis of ``density_fit``: ``auto`` takes what PySCF has for the name of the basis and the
    kind of functional, else the name of a set, or ``even-tempered``."""

    conv_tol: float = Field(default=1e-10, gt=0, le=1e-2)
    """SCF convergence of the energy, Eh."""

    conv_tol_grad: float | None = Field(default=None, gt=0, le=1)
    """SCF convergence of the orbital gradient, Eh; ``null`` is the square root of ``conv_tol``."""

    max_cycle: int = Field(default=100, ge=1, le=10_000)
    """SCF cycles after which a molecule counts as failed."""

    max_memory_mb: int = Field(default=4000, ge=100, le=10_000_000)
    """Memory per process, MB; larger integral tables are recomputed instead of kept."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, data: Any) -> Any:
        keys = {"preset": data} if isinstance(data, str) else data
        if not isinstance(keys, dict) or "preset" not in keys:
            return data
        name = keys["preset"]
        if name not in LEVEL_PRESETS:
            raise ValueError(f"unknown preset {name!r}: known are {', '.join(LEVEL_PRESETS)}")
        return {**LEVEL_PRESETS[name], **{key: value for key, value in keys.items() if key != "preset"}}

    @field_validator("xc", "basis", "auxbasis")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a name is needed")
        return value.strip()

    @model_validator(mode="after")
    def _fitted_by_name(self) -> LevelConfig:
        if self.auxbasis != "auto" and not self.density_fit:
            raise ValueError(f"auxbasis {self.auxbasis!r} is of no use without density_fit: true")
        return self

    @property
    def gradient_tolerance(self) -> float:
        """Threshold of the orbital gradient, Eh."""
        return self.conv_tol**0.5 if self.conv_tol_grad is None else self.conv_tol_grad

    @property
    def ecp_name(self) -> str | None:
        """Name of the ECP set to look elements up in."""
        return self.basis if self.ecp == "auto" else self.ecp


def method_for(level: LevelConfig, spin: int) -> Literal["rks", "uks"]:
    """Return ``"rks"`` or ``"uks"`` for a molecule with ``spin`` = 2S unpaired electrons.

    Raises:
        InputError: restricted was asked for an open shell.
    """
    if level.method == "auto":
        return "uks" if spin else "rks"
    if level.method == "rks" and spin:
        raise InputError(
            f"restricted Kohn–Sham cannot have spin = 2S = {spin}: set method to 'uks' or 'auto'"
        )
    return level.method


@lru_cache(maxsize=64)
def resolve_functional(xc: str) -> str:
    """Return the components of a functional as libxc sees them, in one canonical text.

    For example ``"1*101 + 1*130"`` for PBE; exact exchange added outside libxc follows as
    ``"0.2*HF"`` and the range-separation parameter as ``"(omega 0.3)"``. Names change meaning
    between versions, the numbers of libxc do not.

    Raises:
        InputError: libxc does not know the name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (hybrid, alpha, omega), parts = libxc.parse_xc(xc)
            # Names that libxc resolves and the mean field refuses later, such as wb97x-d.
            parse_disp(xc)
    except (KeyError, ValueError, IndexError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"unknown functional {xc!r}: expected a name that PySCF knows, such as "
            "pbe, b3lyp5, HYB_GGA_XC_WB97X_D or hf"
        ) from error
    weights: dict[int, float] = {}
    for number, weight in parts:
        weights[int(number)] = weights.get(int(number), 0.0) + float(weight)
    terms = [f"{weight:.12g}*{number}" for number, weight in sorted(weights.items())]
    if hybrid:
        terms.append(f"{float(hybrid):.12g}*HF")
    if omega:
        terms.append(f"{float(alpha):.12g}*LR_HF (omega {float(omega):.12g})")
    return " + ".join(terms)


def dispersion_of(level: LevelConfig) -> str | None:
    """Return the name of the empirical dispersion in energies of a level, ``None`` if there is none."""
    if level.dispersion is None:
        return None
    own = resolve_functional(level.xc) == resolve_functional("HYB_GGA_XC_WB97X_D")
    return CHAI_HEAD_GORDON if own else parse_disp(level.xc)[1]


def level_of_theory(
    level: LevelConfig, *, method: str | None = None, auxbasis: str | None = None
) -> LevelOfTheory:
    """Return the level of theory that is stored with data and models.

    Args:
        level: what the user set.
        method: ``"rks"`` or ``"uks"``; needed where the configuration says ``auto``.
        auxbasis: see :func:`helmol.dft.auxiliary_name`.

    Raises:
        InputError: unknown functional, or no method.
    """
    method = level.method if method is None else method
    if method not in ("rks", "uks"):
        raise InputError(f"method {method!r} of a level of theory: expected 'rks' or 'uks'")
    ecp = level.ecp_name
    return LevelOfTheory(
        method=method,
        xc=level.xc.lower(),
        xc_resolved=resolve_functional(level.xc),
        basis=level.basis.lower(),
        ecp=None if ecp is None else ecp.lower(),
        grid_level=level.grid_level,
        density_fit=level.density_fit,
        conv_tol=level.conv_tol,
        code=f"pyscf {pyscf.__version__}",
        auxbasis=auxbasis,
        dispersion=dispersion_of(level),
    )


def level_from(level: LevelOfTheory) -> LevelConfig:
    """Return the configuration that reproduces a stored level of theory.

    An auxiliary basis that is not one set for all elements comes from ``auto``, as does one not written down.
    """
    one_set = level.auxbasis is not None and " " not in level.auxbasis
    return LevelConfig.model_validate(
        {
            "xc": level.xc,
            "basis": level.basis,
            "ecp": level.ecp,
            "method": level.method,
            "grid_level": level.grid_level,
            "density_fit": level.density_fit,
            "auxbasis": level.auxbasis if one_set else "auto",
            "dispersion": None if level.dispersion is None else "auto",
            "conv_tol": level.conv_tol,
        }
    )
