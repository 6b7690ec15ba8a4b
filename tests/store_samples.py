"""Make samples with random matrices for the tests of the store; no DFT is needed here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from helmol.basis import BasisSet, ElementBasis
from helmol.system import LevelOfTheory, Matrices, Molecule, Sample

LEVEL = LevelOfTheory("rks", "pbe", "1*101 + 1*130", "def2-svp", None, 3, False, 1e-10, "pyscf 2.14.0")
HYDROGEN = ElementBasis((0, 0, 1), 0, "hash-h")
OXYGEN = ElementBasis((0, 0, 0, 1, 1, 2), 0, "hash-o")
BASIS = BasisSet("def2-svp", {1: HYDROGEN, 8: OXYGEN})
UKS = replace(LEVEL, method="uks")
WATER = np.array([[0.0, 0.0, 0.0], [0.0, 1.4, 1.1], [0.0, -1.4, 1.1]])


def symmetric(rng: np.random.Generator, nao: int, n_spin: int = 1) -> np.ndarray:
    """Return exactly symmetric random matrices."""
    upper = rng.normal(size=(n_spin, nao, nao))
    full = np.triu(upper) + np.triu(upper, 1).swapaxes(1, 2)
    return full[0] if n_spin == 1 else full


def water(seed: int, **changes) -> Sample:
    """Return a water sample that is a function of its seed; ``changes`` replace fields."""
    rng = np.random.default_rng(seed)
    fields = {
        "id": f"water-{seed}",
        "molecule": Molecule([8, 1, 1], WATER + 0.1 * rng.normal(size=(3, 3))),
        "matrices": Matrices(
            symmetric(rng, 24), symmetric(rng, 24) + 50 * np.eye(24), {"minao": symmetric(rng, 24)}
        ),
        "energy": -76.0 + rng.normal(),
        "forces": rng.normal(size=(3, 3)),
        "dipole": rng.normal(size=3),
        "provenance": {"frame": seed, "source": "märchen"},
    }
    return Sample(**{**fields, **changes})


def bare_hydrogen(seed: int) -> Sample:
    """Return a restricted sample that lacks every optional label."""
    rng = np.random.default_rng(seed)
    molecule = Molecule([1, 1], [[0, 0, 0], [0, 0, 1.4 + rng.uniform()]])
    return Sample(id=f"h2-{seed}", molecule=molecule, matrices=Matrices(symmetric(rng, 10)))


def hydrogen_cation(seed: int) -> Sample:
    """Return an unrestricted sample that lacks every optional label."""
    rng = np.random.default_rng(seed)
    molecule = Molecule([1, 1], [[0, 0, 0], [0, 0, 2.0 + rng.uniform()]], charge=1, spin=1)
    return Sample(id=f"h2+-{seed}", molecule=molecule, matrices=Matrices(symmetric(rng, 10, 2)))


def assert_same(left: Sample, right: Sample) -> None:
    """Compare two samples to the last bit."""
    assert left.id == right.id
    assert left.provenance == right.provenance
    assert (left.molecule.charge, left.molecule.spin) == (right.molecule.charge, right.molecule.spin)
    arrays = [
        (left.molecule.numbers, right.molecule.numbers),
        (left.molecule.positions, right.molecule.positions),
        (left.matrices.fock, right.matrices.fock),
        (left.matrices.overlap, right.matrices.overlap),
        (left.matrices.density, right.matrices.density),
        (left.energy, right.energy),
        (left.forces, right.forces),
        (left.dipole, right.dipole),
    ]
    assert left.matrices.references.keys() == right.matrices.references.keys()
    arrays += [(left.matrices.references[n], right.matrices.references[n]) for n in left.matrices.references]
    for a, b in arrays:
        assert (a is None) == (b is None)
        if a is not None:
            assert np.asarray(a).shape == np.asarray(b).shape
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
