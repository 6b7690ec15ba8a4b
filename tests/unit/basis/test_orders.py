"""Orders of orbitals: there and back to the last bit, against PySCF's own labels and overlaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmol.basis import from_house, m_order, to_house
from helmol.errors import InputError

LARGEST = {"house": 6, "pyscf": 6, "orca": 4, "psi4": 6, "aims": 2}


@given(source=st.sampled_from(sorted(LARGEST)), seed=st.integers(0, 99), n=st.integers(1, 6))
def test_there_and_back_is_exact(source, seed, n):
    rng = np.random.default_rng(seed)
    shells = rng.integers(0, LARGEST[source] + 1, size=n).tolist()
    nao = sum(2 * l + 1 for l in shells)
    matrix = rng.normal(size=(2, nao, nao))
    assert (from_house(to_house(matrix, shells, source), shells, source) == matrix).all()
    assert (to_house(from_house(matrix, shells, source), shells, source) == matrix).all()


def test_documented_tables():
    assert m_order("pyscf", 1)[0].tolist() == [1, 2, 0]
    assert m_order("orca", 1)[0].tolist() == [2, 0, 1]
    assert m_order("psi4", 2)[0].tolist() == [4, 2, 0, 1, 3]
    assert m_order("orca", 3)[0].tolist() == [6, 4, 2, 0, 1, 3, 5]
    assert m_order("orca", 3)[1].tolist() == [-1, 1, 1, 1, 1, 1, -1]
    assert m_order("orca", 4)[1].tolist() == [-1, -1, 1, 1, 1, 1, 1, -1, -1]
    assert m_order("psi4", 3)[1].tolist() == [1] * 7
    assert m_order("aims", 2)[1].tolist() == [1, 1, 1, -1, 1]


def test_pyscf_labels_are_m_from_minus_l_to_l():
    from pyscf import gto

    mol = gto.M(atom="Ne", basis={"Ne": [[l, (1.0, 1.0)] for l in range(5)]}, verbose=0)
    labels = [label.split()[2][2:] for label in mol.ao_labels()]
    house = [labels[k] for k in np.concatenate([start + m_order("pyscf", l)[0] for l, start in enumerate(
        [0, 1, 4, 9, 16])])]  # fmt: skip
    assert house[1:4] == ["y", "z", "x"]
    assert house[4:9] == ["xy", "yz", "z^2", "xz", "x2-y2"]
    assert house[9:16] == ["-3", "-2", "-1", "+0", "+1", "+2", "+3"]
    assert house[16:] == ["-4", "-3", "-2", "-1", "+0", "+1", "+2", "+3", "+4"]


def test_unverified_and_misfitting_orders_are_refused():
    with pytest.raises(InputError, match="no verified aims order for l = 3"):
        m_order("aims", 3)
    with pytest.raises(InputError, match="does not fit 4 atomic orbitals"):
        to_house(np.eye(5), [0, 1], "pyscf")
