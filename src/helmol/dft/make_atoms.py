"""Write ``atoms.json``: ``python -m helmol.dft.make_atoms``. Takes a minute."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
from pyscf import gto
from pyscf.scf import atom_hf

from helmol.arrays import Array
from helmol.dft.atoms import TABLE, SphericalAtom, computed_atom, distances, fit_density
from helmol.dft.densities import atom_of
from helmol.elements import SYMBOLS
from helmol.files import write_text

ALL_ELECTRON = range(1, 87)
WITH_POTENTIAL = (*range(37, 58), *range(72, 87))
"""Elements to which def2 sets give an effective core potential, as far as PySCF has them."""
BASIS = "def2-qzvpp"
"""Basis of atoms with effective core potentials."""


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


def atoms() -> dict[str, dict[str, Any]]:
    """Return the coefficients of all atoms by atomic number and core electrons."""
    r = distances()
    found = {str(z): {"0": _rounded(fit_density(r, ano_density(z, r), z, z))} for z in ALL_ELECTRON}
    for z in WITH_POTENTIAL:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mole = gto.M(atom=SYMBOLS[z], basis=BASIS, ecp=BASIS, spin=None, verbose=0)
        core = int(mole.atom_nelec_core(0))
        found[str(z)][str(core)] = _rounded(computed_atom(*atom_of(mole, 0)))
    return found


def _rounded(atom: SphericalAtom) -> list[float]:
    """Return the coefficients with twelve digits: a charge of 86 electrons stays exact to 1e-9."""
    return [float(f"{c:.12g}") for c in atom.density]


if __name__ == "__main__":
    rows = (f'"{z}": {json.dumps(cores)}' for z, cores in atoms().items())
    write_text(TABLE, "{\n" + ",\n".join(rows) + "\n}\n")
