"""A domain knows which elements it has seen together."""

from __future__ import annotations

import json

from helmol import dft
from helmol.basis import BasisSet
from helmol.system import Molecule
from helmol.target import Domain, element_pairs
from scf_truth import LEVEL


def molecule(*numbers: int) -> Molecule:
    positions = [[3.0 * k, 0, 0] for k in range(len(numbers))]
    return Molecule(numbers, positions, spin=sum(numbers) % 2)


def test_pairs_of_elements() -> None:
    assert element_pairs(molecule(8, 1, 1)) == {(1, 1), (1, 8)}
    assert element_pairs(molecule(2)) == set()
    basis = BasisSet("made up", {})
    level = dft.level_of_theory(LEVEL, method="rks")
    old = Domain(level, basis, "fock", (0,), (0,))
    assert old.new_pairs(molecule(7, 15)) == ()
    assert "pairs" not in old.to_json()
    domain = Domain(level, basis, "fock", (0,), (0,), (), ((1, 1), (1, 7), (1, 15), (7, 7)))
    assert Domain.from_json(json.loads(json.dumps(domain.to_json()))) == domain
    assert domain.new_pairs(molecule(7, 1, 15)) == ("N-P",)
    assert domain.new_pairs(molecule(15, 1, 15)) == ("P-P",)
    assert domain.new_pairs(molecule(7, 1, 7)) == ()
