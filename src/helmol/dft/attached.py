"""What a user's own SCF object says beyond its molecule: functional, surroundings, changed methods."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pyscf import dft, scf
from pyscf.dft.libxc import is_nlc, rsh_coeff

from helmol.dft.level import resolve_functional
from helmol.system import LevelOfTheory

FUNCTIONAL_METHODS = (
    "eval_xc", "eval_xc1", "eval_xc_eff", "hybrid_coeff", "rsh_coeff", "rsh_and_hybrid_coeff", "_xc_type",
)  # fmt: skip
"""What ``define_xc_`` replaces on the object that integrates the functional."""

FOCK_METHODS = ("get_veff", "get_jk", "get_j", "get_k", "get_fock", "eig", "get_occ", "make_rdm1")
"""Methods of an SCF object that its first step goes through."""

SAME_MATRIX = 1e-9
"""Two matrices of one-electron integrals are the same within this, Eh."""


def other_functional(mf: Any, level: LevelOfTheory) -> str | None:
    """Return the functional of a PySCF mean field in words, if it is another one than that of a level.

    A name with another meaning, ``define_xc_``, ``nlc`` and ``omega`` set by hand are all differences.

    Returns:
        ``None`` if it is the same functional.

    Raises:
        InputError: libxc does not know the name.
    """
    xc = str(getattr(mf, "xc", "hf"))
    if resolve_functional(xc) != level.xc_resolved:
        return f"the functional {xc.upper()} (it has learnt {level.xc.upper()})"
    if not isinstance(mf, dft.rks.KohnShamDFT):
        return None
    integrals = mf._numint
    if any(name in vars(integrals) for name in FUNCTIONAL_METHODS):
        return f"a functional of its own (define_xc_), whatever mf.xc = {xc!r} says"
    own = float(rsh_coeff(xc)[0])
    if integrals.omega is not None and abs(integrals.omega - own) > SAME_MATRIX:
        return f"mf.omega = {integrals.omega:g} ({xc.upper()} has {own:g})"
    if mf.do_nlc() != is_nlc(xc):
        return f"mf.nlc = {mf.nlc!r} (which is not what {xc.upper()} stands for)"
    return None


def beyond_the_molecule(mf: Any, mol: Any) -> list[str]:
    """Return in words what acts on the electrons of a PySCF mean field besides its molecule.

    Found are solvents, point charges, relativistic terms, whatever else changes the core Hamiltonian (fields,
    a ``get_hcore`` of the user's), and methods replaced on the object.
    """
    found = []
    if _is_of(mf, "pyscf.solvent._attach_solvent", "_Solvation"):
        found.append(f"a solvent ({type(mf.with_solvent).__name__})")
    is_qmmm, is_x2c = _is_of(mf, "pyscf.qmmm.itrf", "QMMM"), bool(getattr(mf, "with_x2c", None))
    if is_qmmm:
        found.append(f"{len(mf.mm_mol.atom_charges())} point charges")
    if is_x2c:
        found.append("relativistic terms (X2C)")
    core = "get_hcore" in vars(mf) or not (is_qmmm or is_x2c)
    if core and (change := _largest(mf.get_hcore(mol), scf.hf.get_hcore(mol))) > SAME_MATRIX:
        found.append(
            f"a core Hamiltonian of its own (an external field? it differs by up to {change:.2g} Eh)"
        )
    found += [f"its own {name}" for name in FOCK_METHODS if name in vars(mf)]
    return found


def has_own_overlap(mf: Any, mol: Any) -> bool:
    """Return whether a mean field has another overlap than the functions of its molecule."""
    return _largest(mf.get_ovlp(mol), scf.hf.get_ovlp(mol)) > SAME_MATRIX


def _is_of(mf: Any, module: str, name: str) -> bool:
    """Return whether an object is of a class of PySCF that need not have been imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(mf, kind)


def _largest(first: Any, second: Any) -> float:
    return float(np.abs(np.asarray(first) - np.asarray(second)).max())
