from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from helmol.store import statistics
from helmol.system import Matrices, Molecule
from store_samples import BASIS, WATER, symmetric, water


def test_fock_statistics_agree_with_loops():
    samples = [water(seed) for seed in range(4)]
    gathered = statistics.FockStatistics(BASIS)
    for sample in samples:
        gathered.add(sample)
    result = gathered.result()
    # water is O (3 s, 2 p, 1 d: 14 orbitals), H (2 s, 1 p: 5), H
    l_of = [0] * 3 + [1] * 6 + [2] * 5 + 2 * ([0] * 2 + [1] * 3)
    atom_of = [0] * 14 + [1] * 5 + [2] * 5
    onsite, offsite, diagonal = [], [], []
    for sample in samples:
        fock = sample.matrices.fock
        diagonal.append(fock[0, 0])
        for i in range(24):
            for j in range(i + 1, 24):
                if {l_of[i], l_of[j]} == {0, 1} and atom_of[i] == atom_of[j] == 0:
                    onsite.append(fock[i, j])
                # oxygen d with hydrogen s
                if atom_of[i] == 0 and atom_of[j] > 0 and (l_of[i], l_of[j]) == (2, 0):
                    offsite.append(fock[i, j])
    for values, entry in (
        (diagonal, result["diagonal"]["O 1s"]),
        (onsite, result["onsite"]["O s-p"]),
        (offsite, result["offsite"]["H-O s-d"]),
    ):
        assert entry["n"] == len(values)
        assert entry["mean_Eh"] == pytest.approx(np.mean(values))
        assert entry["std_Eh"] == pytest.approx(np.std(values))
    total = sum(entry["n"] for table in result.values() for entry in table.values())
    assert total == 4 * 24 * 25 // 2


def test_shell_names_count_from_the_first_of_each_l():
    assert statistics.shell_names([0, 0, 1, 0, 2, 1]) == ["1s", "2s", "2p", "3s", "3d", "3p"]


def test_energy_outliers_are_found_and_only_they():
    rng = np.random.default_rng(0)
    numbers = [np.array([8] * rng.integers(1, 4) + [1] * rng.integers(1, 6)) for _ in range(50)]
    energies = np.array([-75.0 * (z == 8).sum() - 0.5 * (z == 1).sum() for z in numbers])
    energies += 0.01 * rng.normal(size=50)
    ids = [f"m{k}" for k in range(50)]
    assert statistics.energy_outliers(ids, numbers, energies)["outliers"] == []
    energies[7] += 1.0
    found = statistics.energy_outliers(ids, numbers, energies)
    assert [o["id"] for o in found["outliers"]] == ["m7"]
    assert found["outliers"][0]["residual_Eh"] == pytest.approx(1.0, abs=0.3)


def test_energies_of_one_composition_are_compared_too_few_are_not():
    numbers = [np.array([8, 1, 1])] * 20
    energies = -76.0 + 0.01 * np.random.default_rng(0).normal(size=20)
    energies[3] = -70.0
    ids = [str(k) for k in range(20)]
    found = statistics.energy_outliers(ids, numbers, energies)
    assert found["rank"] == 1
    assert [o["id"] for o in found["outliers"]] == ["3"]
    assert "too few" in statistics.energy_outliers(ids[:3], numbers[:3], energies[:3])["skipped"]
    assert statistics.energy_outliers([], [], np.zeros(0)) == {"skipped": "no energies"}


def test_equal_geometries_see_through_rotation_and_order_but_not_charge(rng):
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = [2, 0, 1]
    first = Molecule([8, 1, 1], WATER + 0.1 * rng.normal(size=(3, 3)))
    same = Molecule(first.numbers[order], (first.positions @ rotation.T + 5.0)[order])
    other = Molecule(first.numbers, first.positions * 1.01)
    charged = Molecule(first.numbers, first.positions, charge=2)
    molecules = [("a", first), ("b", same), ("c", other), ("d", charged)]
    assert statistics.equal_geometries(molecules) == [["a", "b"]]


def test_copies_on_both_sides_of_a_rounding_boundary_are_found(rng):
    step = statistics.DISTANCE_TOLERANCE_BOHR
    lengths = [(1400.5) * step + shift for shift in (-5e-10, 5e-10, 20 * step)]
    molecules = [(str(k), Molecule([1, 1], [[0, 0, 0], [0, 0, length]])) for k, length in enumerate(lengths)]
    # Rounding alone tells the first two apart.
    assert round(lengths[0] / step) != round(lengths[1] / step)
    assert statistics.equal_geometries(molecules) == [["0", "1"]]
    # With hundreds of distances some lie at a boundary in any grid.
    base = [rng.normal(size=(30, 3)) * 5 for _ in range(20)]
    frames = [(f"{k}-{side}", Molecule([6] * 30, x + side * 1e-9 * rng.normal(size=x.shape)))
              for side in (0, 1) for k, x in enumerate(base)]  # fmt: skip
    assert sorted(map(sorted, statistics.equal_geometries(frames))) == sorted(
        [f"{k}-0", f"{k}-1"] for k in range(20)
    )
    assert statistics.equal_geometries([(id, m) for id, m in frames if id.endswith("0")]) == []
    atoms = [(name, Molecule([8], rng.normal(size=(1, 3)))) for name in "ab"]
    assert statistics.equal_geometries(atoms) == [["a", "b"]]


def test_block_norms_add_up_to_the_matrix(rng):
    sample = water(1, matrices=Matrices(symmetric(rng, 24, 2)))
    norms = statistics.block_norms(sample, BASIS)
    assert sorted(norms) == ["distance_bohr", "fock"]
    starts = [0, 14, 19, 24]
    onsite = sum((sample.matrices.fock[:, a:b, a:b] ** 2).sum() for a, b in pairwise(starts))
    assert 2 * (2 * norms["fock"] ** 2).sum() + onsite == pytest.approx((sample.matrices.fock**2).sum())
