"""PySCF checkpoint files: what ``mf.init_guess = "chkfile"`` and ``mf.from_chk`` read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pyscf import gto
from pyscf.scf import chkfile

from helmol.damage import DAMAGE, one_line
from helmol.dft.level import LevelConfig
from helmol.dft.mole import build_mole
from helmol.errors import InputError
from helmol.system import Molecule

_GROUP = "helmol"


def write_chkfile(
    path: Path,
    molecule: Molecule,
    level: LevelConfig,
    *,
    orbitals: Mapping[str, Any],
    arrays: Mapping[str, Any],
) -> None:
    """Write a checkpoint file that PySCF can start from.

    Args:
        path: a new file.
        molecule: nuclei, charge, spin.
        level: for the basis.
        orbitals: ``e_tot mo_energy mo_coeff mo_occ`` in PySCF's order.
        arrays: kept in a group of their own for :func:`read_chkfile`; text becomes text.
    """
    write_mole_chkfile(path, build_mole(molecule, level), orbitals)
    with h5py.File(path, "a") as file:
        group = file.create_group(_GROUP)
        for name, value in arrays.items():
            values = np.asarray(value)
            group[name] = str(values) if values.dtype.kind == "U" else values


def write_mole_chkfile(path: Path, mole: gto.Mole, orbitals: Mapping[str, Any]) -> None:
    """Write a checkpoint file of PySCF's own, nothing else in it.

    Args:
        path: a new file.
        mole: molecule and basis.
        orbitals: ``e_tot mo_energy mo_coeff mo_occ`` in PySCF's order.
    """
    arrays = {name: np.asarray(orbitals[name]) for name in ("mo_energy", "mo_coeff", "mo_occ")}
    chkfile.dump_scf(mole, str(path), orbitals["e_tot"], **arrays)


def read_chkfile(path: Path) -> dict[str, Any]:
    """Return the arrays that :func:`write_chkfile` kept.

    Raises:
        InputError: another file.
    """
    try:
        with h5py.File(path, "r") as file:
            # Not compressed: what is there is no larger than the file, whatever a shape says.
            if sum(data.size * data.dtype.itemsize for data in file[_GROUP].values()) > path.stat().st_size:
                raise ValueError("its arrays claim more bytes than the file has")
            found = {name: data[()] for name, data in file[_GROUP].items()}
        return {name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()}
    except (OSError, *DAMAGE) as error:
        raise InputError(f"{path} is no checkpoint file of 'helmol convert': {one_line(error)}") from error
