"""Write ``atoms.json``: ``python -m helmol.dft.make_atoms``. Takes some minutes."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
from pyscf import gto
from pyscf.scf import atom_hf, atom_ks

from helmol.arrays import Array
from helmol.dft.atoms import TABLE, SphericalAtom, distances, fit_density, radial_density
from helmol.elements import SYMBOLS
from helmol.files import write_text

ALL_ELECTRON = range(1, 87)
MIDDLE = range(19, 37)
"""All-electron atoms of def2 sets that are computed: the scalar-relativistic cores of PySCF's minao orbitals
are off by Eh in a non-relativistic Fock matrix. Before, that is little, and orbitals contracted as in
molecules lie nearer to converged densities; beyond, there is no such set."""
LARGEST_L = 3
"""Largest degree of an occupied shell."""
WITH_POTENTIAL = (*range(37, 58), *range(72, 87))
"""Elements to which def2 sets give an effective core potential, as far as PySCF has them."""
BASIS = "def2-qzvpp"
"""Basis of computed atoms."""


def ano_density(number: int, r: Array) -> Array:
    """Return the density of PySCF's minao atom before any projection, per bohr³.

    Source: Roos et al., J. Phys. Chem. A 108, 2851 (2004) and later, as in PySCF's basis library.
    """
    symbol = SYMBOLS[number]
    shells = {shell[0]: shell[1:] for shell in gto.basis.load("ano", symbol)}
    density = np.zeros_like(r)
    for l in range(4):
        doubly, rest = atom_hf.frac_occ(symbol, l)
        occupations = [2.0] * doubly + [rest] * (rest > 0)
        if not occupations:
            continue
        mole = gto.Mole()
        mole.verbose, mole.spin, mole.atom = 0, None, [(symbol, (0.0, 0.0, 0.0))]
        mole.basis = {symbol: [[l, *[row[: 1 + len(occupations)] for row in shells[l]]]]}
        mole.build(dump_input=False, parse_arg=False)
        # Functions with m = 0 along z; those of a whole shell make (2l + 1) times their mean square.
        values = mole.eval_gto("GTOval", r[:, None] * [0.0, 0.0, 1.0])
        square = (values.reshape(len(r), len(occupations), 2 * l + 1) ** 2).sum(axis=2)
        density += square @ np.array(occupations)
    return density


def kohn_sham_atom(number: int, r: Array, *, core: bool) -> SphericalAtom:
    """Return the neutral, spherically averaged PBE atom, with or without its effective core potential.

    Raises:
        RuntimeError: PySCF does not converge it.
    """
    symbol = SYMBOLS[number]
    basis = [shell for shell in gto.basis.load(BASIS, symbol) if shell[0] <= LARGEST_L]
    ecp = {symbol: gto.basis.load_ecp(BASIS, symbol)} if core else {}
    mole = gto.M(atom=symbol, basis={symbol: basis}, ecp=ecp, spin=None, verbose=0)
    start = atom_hf.AtomSphAverageRHF(mole)
    start.verbose, start.max_cycle = 0, 300
    start.kernel()
    atom = atom_ks.AtomSphAverageRKS(mole)
    atom.verbose, atom.max_cycle, atom.xc, atom.grids.level = 0, 300, "pbe", 4
    atom.kernel(start.make_rdm1())
    if not atom.converged:
        atom.level_shift = 0.3
        atom.kernel(start.make_rdm1())
    if not atom.converged:
        raise RuntimeError(f"the PBE atom {symbol} does not converge")
    density = radial_density(mole, atom.mo_coeff, atom.mo_occ, r)
    return fit_density(r, density, int(mole.atom_charge(0)), core=core)


def atoms() -> dict[str, dict[str, Any]]:
    """Return the coefficients of all atoms by atomic number and core electrons."""
    r = distances()
    found = dict[str, dict[str, Any]]()
    for z in ALL_ELECTRON:
        atom = kohn_sham_atom(z, r, core=False) if z in MIDDLE else fit_density(r, ano_density(z, r), z)
        found[str(z)] = {"0": _rounded(atom)}
    for z in WITH_POTENTIAL:
        atom = kohn_sham_atom(z, r, core=True)
        found[str(z)][str(z - atom.charge)] = _rounded(atom)
    return found


def _rounded(atom: SphericalAtom) -> list[float]:
    """Return the coefficients with twelve digits: a charge of 86 electrons stays exact to 1e-9."""
    return [float(f"{c:.12g}") for c in atom.density]


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = (f'"{z}": {json.dumps(cores)}' for z, cores in atoms().items())
        write_text(TABLE, "{\n" + ",\n".join(rows) + "\n}\n")
