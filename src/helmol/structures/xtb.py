"""Energies, forces and gaps of molecules with GFN2-xTB, from tblite.

Source: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from helmol.arrays import Array
from helmol.errors import InputError
from helmol.system import Molecule
from helmol.threads import one_thread
from helmol.units import EV_PER_HARTREE

HESSIAN_STEP_BOHR = 0.01
"""Displacement of the central differences; their error is that of fourth derivatives, 1e-5."""


def xtb_atoms(molecule: Molecule, *, what: str) -> Any:
    """Return ``ase.Atoms`` with the GFN2-xTB calculator.

    Args:
        molecule: nuclei, charge, spin.
        what: needs it; for the message if it is missing.

    Raises:
        InputError: ASE or tblite is missing.
    """
    try:
        # One thread: a small molecule is slower with many, and the sums would depend on their number.
        with one_thread():
            from ase import Atoms
            from tblite.ase import TBLite
    except ImportError as error:
        raise InputError(
            f"{what} needs ASE and tblite ({error.name} is missing): pip install 'helmol[md]'"
        ) from error
    atoms = Atoms(numbers=molecule.numbers, positions=molecule.positions_ang)
    atoms.calc = TBLite(
        method="GFN2-xTB", charge=molecule.charge, multiplicity=molecule.spin + 1, verbosity=0
    )
    return atoms


def xtb_errors() -> tuple[type[Exception], ...]:
    """Return what ASE and tblite raise when xTB fails."""
    from ase.calculators.calculator import CalculatorError

    return (CalculatorError, RuntimeError)


def relax(molecule: Molecule, *, force_ev_ang: float = 0.05, max_steps: int = 200) -> tuple[Molecule, bool]:
    """Relax a molecule on the GFN2-xTB surface.

    Args:
        molecule: start geometry, charge, spin.
        force_ev_ang: largest force on an atom at which to stop, eV/Å.
        max_steps: steps after which to stop in any case.

    Returns:
        The last geometry, and whether the forces became that small.

    Raises:
        InputError: xTB is missing or fails, or two atoms meet.
    """
    atoms = xtb_atoms(molecule, what="relaxing structures")
    from ase.optimize import LBFGS

    try:
        converged = bool(LBFGS(atoms, logfile=None).run(fmax=force_ev_ang, steps=max_steps))
    except xtb_errors() as error:
        raise InputError(f"GFN2-xTB failed for {molecule.formula}: {' '.join(str(error).split())}") from error
    positions = atoms.get_positions()
    return Molecule.from_angstrom(
        molecule.numbers, positions, charge=molecule.charge, spin=molecule.spin
    ), converged


def gap_ev(molecule: Molecule) -> float:
    """Return the HOMO–LUMO gap of GFN2-xTB in eV; infinite if no orbital is empty.

    Raises:
        InputError: xTB is missing or fails.
    """
    result = _single_point(molecule)
    energies, occupations = result.get("orbital-energies"), result.get("orbital-occupations")
    empty = energies[occupations < 1]
    return float((empty.min() - energies[occupations >= 1].max()) * EV_PER_HARTREE) if len(empty) else np.inf


def hessian(molecule: Molecule) -> Array:
    """Return second derivatives of the GFN2-xTB energy, Eh/bohr², ``[3 n_atoms, 3 n_atoms]``.

    Central differences of gradients, made symmetric.

    Raises:
        InputError: xTB is missing or fails.
    """
    size = 3 * molecule.n_atoms
    rows = np.zeros((size, size))
    for k in range(size):
        for sign in (1, -1):
            shift = np.zeros(size)
            shift[k] = sign * HESSIAN_STEP_BOHR
            moved = Molecule(
                molecule.numbers, molecule.positions + shift.reshape(-1, 3), molecule.charge, molecule.spin
            )
            rows[k] += sign * _single_point(moved).get("gradient").ravel() / (2 * HESSIAN_STEP_BOHR)
    return np.asarray((rows + rows.T) / 2)


def _single_point(molecule: Molecule) -> Any:
    """Return tblite's result at one geometry."""
    try:
        with one_thread():
            from tblite.interface import Calculator
    except ImportError as error:
        raise InputError("GFN2-xTB needs tblite: pip install 'helmol[md]'") from error
    try:
        calculator = Calculator(
            "GFN2-xTB", molecule.numbers, molecule.positions, charge=molecule.charge, uhf=molecule.spin
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", 0.1)
        return calculator.singlepoint()
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"GFN2-xTB failed for {molecule.formula}: {' '.join(str(error).split())}") from error
