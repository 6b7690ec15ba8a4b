"""Predictions as files of other programs: cube, Molden, PySCF's checkpoint, a picture of the levels.

All but the picture need PySCF. Every file is written whole or not at all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helmol import properties
from helmol.arrays import Array
from helmol.errors import InputError
from helmol.files import replacing
from helmol.places import PathLike
from helmol.predict.prediction import Prediction
from helmol.units import ANGSTROM_PER_BOHR

SPACING = 0.25
"""Distance of the points of a cube, Å."""
STEP_ROUNDING = 1e-5
"""What a distance may lose in a cube file, Å."""

SPINS = ("alpha", "beta")
FIELDS = ("density", "spin", "esp")
"""What a cube can hold besides orbitals."""

_ORBITAL = re.compile(r"(?P<kind>homo|lumo|mo)(?P<shift>[+-]?\d+)?(?:-(?P<spin>alpha|beta))?")
CUBE = "density, spin, esp, homo, homo-1, lumo, lumo+1 or the number of an orbital (from 1)"
"""What can be asked for, in words."""


def cube_names(wanted: Sequence[str], *, unrestricted: bool) -> list[str]:
    """Return the cubes that names stand for: an orbital of an unrestricted prediction is two.

    Args:
        wanted: names as users write them, ``17`` for ``mo17``.
        unrestricted: whether there are orbitals of alpha and beta.

    Raises:
        InputError: a name that means nothing, or the spin density of closed shells.
    """
    found: list[str] = []
    for text in wanted:
        name = f"mo{text}" if text.isdecimal() else text.lower()
        if name in FIELDS:
            if name == "spin" and not unrestricted:
                raise InputError(
                    "the model is restricted: what it predicts has no spin density to put in a cube"
                )
            found.append(name)
            continue
        match = _ORBITAL.fullmatch(name)
        if match is None or not _is_orbital(match):
            raise InputError(f"cannot make a cube of {text!r}: expected {CUBE}")
        if match["spin"] and not unrestricted:
            raise InputError(
                f"cannot make a cube of {text!r}: the model is restricted, its orbitals have no spin"
            )
        spins = [f"{name}-{spin}" for spin in SPINS] if unrestricted and not match["spin"] else [name]
        found += spins
    return list(dict.fromkeys(found))


def _is_orbital(match: re.Match[str]) -> bool:
    """Return whether the shift of a name fits its kind: down from the HOMO, up from the LUMO."""
    kind, shift = match["kind"], match["shift"] or ""
    if kind == "mo":
        return shift.isdecimal() and int(shift) > 0
    return not shift or shift.startswith("-" if kind == "homo" else "+")


def write_cube(prediction: Prediction, path: PathLike, name: str, *, spacing: float = SPACING) -> None:
    """Write a cube file of a prediction.

    Args:
        prediction: restricted or unrestricted.
        path: file to write.
        name: ``density`` (1/bohr³), ``spin`` (α − β), ``esp`` (electrostatic potential, Eh/e; slow), or an
            orbital (bohr^(−3/2)): ``homo``, ``homo-1``, ``lumo``, ``lumo+2``, ``mo17`` (counted from 1, as in
            a Molden file), of an unrestricted prediction with ``-alpha`` or ``-beta`` behind it.
        spacing: largest distance of neighbouring points along an axis, Å.

    Raises:
        InputError: no such name, orbital or spin, or PySCF is missing.
    """
    unrestricted = prediction.density.ndim == 3
    names = cube_names([name], unrestricted=unrestricted)
    if len(names) != 1:
        raise InputError(f"two orbitals are called {name!r}: name one of {', '.join(names)}")
    check_spacing(spacing)
    mole, dft = prediction.mole, prediction.pyscf_room
    title, total = f"{prediction.id}: ", properties.total_density(prediction.density)
    with replacing(Path(path)) as file:
        if names == ["esp"]:
            dft.write_potential_cube(
                file, mole, total, spacing=spacing, comment=title + "electrostatic potential, Eh/e"
            )
        elif names == ["density"]:
            dft.write_density_cube(
                file, mole, total, spacing=spacing, comment=title + "electron density, 1/bohr^3"
            )
        elif names == ["spin"]:
            difference = properties.spin_density(prediction.density)
            dft.write_density_cube(
                file, mole, difference, spacing=spacing, comment=title + "spin density, 1/bohr^3"
            )
        else:
            orbital, energy = orbital_named(prediction, names[0])
            comment = f"{title}{names[0]}, {energy:.6f} Eh, values in bohr^-3/2"
            dft.write_orbital_cube(file, mole, orbital, spacing=spacing, comment=comment)


@dataclass(frozen=True)
class CubeWriter:
    """Write cubes of one kind, for :func:`helmol.predict.files.predict_file`.

    Attributes:
        name: see :func:`write_cube`.
        spacing: Å.
    """

    name: str
    spacing: float = SPACING

    def __call__(self, prediction: Prediction, path: Path) -> None:
        """Write a cube."""
        write_cube(prediction, path, self.name, spacing=self.spacing)

    def fits(self, path: Path) -> bool:
        """Return whether a cube has points of this spacing, or of what comes next below it on each axis."""
        try:
            with path.open(encoding="utf-8") as file:
                axes = [line.split() for line in itertools.islice(file, 3, 6)]
            for axis, words in enumerate(axes):
                n, step = int(words[0]), ANGSTROM_PER_BOHR * float(words[1 + axis])
                coarser = step * (n - 1) / max(n - 3, 1)
                if not step - STEP_ROUNDING <= self.spacing <= coarser + STEP_ROUNDING:
                    return False
        except (ValueError, IndexError):
            return False
        return len(axes) == 3


def check_spacing(spacing: float) -> None:
    """Raise InputError for a distance of points that makes no grid."""
    if not spacing > 0:
        raise InputError(f"the points of a cube need a distance above 0, not {spacing}")


def orbital_named(prediction: Prediction, name: str) -> tuple[Array, float]:
    """Return an orbital by the name of its cube: coefficients ``[nao]``, PySCF order, and energy in Eh.

    Raises:
        InputError: there is no such orbital.
    """
    match = _ORBITAL.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} is no name of an orbital: expected {CUBE}")
    spin = SPINS.index(match["spin"]) if match["spin"] else 0
    coefficients = prediction.mo_coeff.reshape(-1, *prediction.mo_coeff.shape[-2:])[spin]
    n_occupied = int((np.atleast_2d(prediction.mo_occ)[spin] > 0).sum())
    first = {"homo": n_occupied - 1, "lumo": n_occupied, "mo": -1}[match["kind"]]
    place = first + int(match["shift"] or 0)
    if not 0 <= place < coefficients.shape[1]:
        raise InputError(
            f"{prediction.id!r} has no orbital {name!r}: {n_occupied} of its "
            f"{coefficients.shape[1]} are occupied"
        )
    return coefficients[:, place], float(np.atleast_2d(prediction.mo_energy)[spin, place])


def write_chkfile(prediction: Prediction, path: PathLike) -> None:
    """Write a prediction as a checkpoint file that PySCF starts from.

    ``mf.chkfile = path; mf.init_guess = "chkfile"`` starts from the predicted density, without helmol, and
    puts the converged orbitals in its place; ``mf.kernel(dm0=mf.from_chk(path))`` leaves the file as it is.
    The total energy in it is NaN: none was computed.

    Raises:
        InputError: PySCF is missing.
    """
    mole, dft = prediction.mole, prediction.pyscf_room
    orbitals: dict[str, Any] = {
        name: getattr(prediction, name) for name in ("mo_energy", "mo_coeff", "mo_occ")
    }
    with replacing(Path(path)) as file:
        file.unlink()  # PySCF adds to a file that is there
        dft.write_mole_chkfile(file, mole, {"e_tot": np.nan, **orbitals})
