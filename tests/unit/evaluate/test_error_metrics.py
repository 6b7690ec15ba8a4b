"""The metrics against their definitions, written out the slow way; missing labels stay missing."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from helmol.basis import BasisSet, ElementBasis
from helmol.errors import InputError
from helmol.evaluate import (
    ENERGY_METRICS,
    FOCK_METRICS,
    FROM_FOCK_METRICS,
    METRICS,
    SPIN_METRICS,
    errors,
    plots,
)
from helmol.system import Matrices, Molecule, Sample
from helmol.units import ANGSTROM_PER_BOHR

BASIS = BasisSet("toy", {1: ElementBasis((0, 0), 0, "h"), 8: ElementBasis((0, 0, 1), 0, "o")})


def _symmetric(random: np.random.Generator, n: int, scale: float) -> np.ndarray:
    matrix = random.normal(size=(n, n)) * scale
    return matrix + matrix.T


def _sample(
    seed: int, numbers: tuple[int, ...] = (8, 1, 1), *, overlap: bool = True, spin: int = 0, charge: int = 0
) -> Sample:
    random = np.random.default_rng(seed)
    molecule = Molecule(np.array(numbers), random.normal(size=(len(numbers), 3)) * 9, charge, spin)
    n = int(BASIS.offsets(numbers)[-1])
    metric = np.eye(n) + _symmetric(random, n, 0.02)
    focks = [np.diag(np.arange(n, dtype=float)) + _symmetric(random, n, 0.1) for _ in range(2 if spin else 1)]
    fock = np.stack(focks) if spin else focks[0]
    guess = fock + _symmetric(random, n, 1e-2)
    return Sample(str(seed), molecule, Matrices(fock, metric if overlap else None, {"minao": guess}))


def _noisy(samples: list[Sample], scale: float = 1e-4) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [s.matrices.fock + _symmetric(random, s.matrices.nao, scale) for s in samples]


def test_perfect_prediction_has_no_error() -> None:
    samples = [_sample(k) for k in range(3)]
    result = errors(samples, [s.matrices.fock.copy() for s in samples], BASIS)
    for metric in FOCK_METRICS:
        if metric == "dipole_mae_debye":
            assert result[metric] is None
        else:
            assert result[metric] == pytest.approx(1.0 if metric.startswith("psi") else 0.0, abs=1e-9)
    assert "level of theory" in result["missing"]["dipole_mae_debye"]


def test_matrix_errors_are_means_per_molecule_then_over_molecules() -> None:
    samples = [_sample(1), _sample(2, (8, 1, 1, 8, 1, 1))]
    predicted = _noisy(samples)
    result = errors(samples, predicted, BASIS)
    total, diagonal, off = [], [], []
    for sample, matrix in zip(samples, predicted, strict=True):
        delta = np.abs(matrix - sample.matrices.fock)
        offsets = BASIS.offsets(sample.molecule.numbers)
        atom = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        same = atom[:, None] == atom
        total.append(delta.mean())
        diagonal.append(delta[same].mean())
        off.append(delta[~same].mean())
    assert result["h_mae_uEh"] == pytest.approx(1e6 * np.mean(total), rel=1e-12)
    assert result["h_mae_diagonal_uEh"] == pytest.approx(1e6 * np.mean(diagonal), rel=1e-12)
    assert result["h_mae_offdiagonal_uEh"] == pytest.approx(1e6 * np.mean(off), rel=1e-12)
    # The pooled mean over all elements, a common mistake, is another number here.
    pooled = sum(np.abs(p - s.matrices.fock).sum() for s, p in zip(samples, predicted, strict=True))
    pooled /= sum(p.size for p in predicted)
    assert result["h_mae_uEh"] != pytest.approx(1e6 * pooled, rel=1e-6)
    low, high = result["h_mae_uEh_ci95"]
    assert low <= result["h_mae_uEh"] <= high


def test_errors_by_element_find_the_planted_one() -> None:
    sample = _sample(3)
    matrix = sample.matrices.fock.copy()
    matrix[0, 0] += 1e-3  # first s function of the oxygen
    matrix[0, 5] += 1e-3  # that with the first s function of the first hydrogen
    matrix[5, 0] += 1e-3
    result = errors([sample], [matrix], BASIS)
    assert result["by_element"]["O"]["h_mae_uEh"] == pytest.approx(1000 / 25)
    assert result["by_element"]["H"]["h_mae_uEh"] == 0
    pairs = result["by_element_pair"]
    assert set(pairs) == {"H-O", "H-H"}
    assert pairs["H-O"]["h_mae_uEh"] == pytest.approx(2 * 1000 / 40)
    assert pairs["H-H"]["h_mae_uEh"] == 0
    shells = result["by_shell_pair"]
    assert shells["onsite"]["O s-O s"]["h_mae_uEh"] == pytest.approx(1000 / 4)
    assert shells["onsite"]["O p-O p"]["h_mae_uEh"] == 0
    assert shells["offsite"]["H s-O s"]["h_mae_uEh"] == pytest.approx(2 * 1000 / 16)
    assert sum(v["n_elements"] for part in shells.values() for v in part.values()) == 81


def test_orbital_errors_against_the_slow_way() -> None:
    sample = _sample(4)
    matrix = _noisy([sample], 1e-3)[0]
    result = errors([sample], [matrix], BASIS)
    e0, c0 = scipy.linalg.eigh(sample.matrices.fock, sample.matrices.overlap)
    e1, c1 = scipy.linalg.eigh(matrix, sample.matrices.overlap)
    assert result["eps_occ_mae_uEh"] == pytest.approx(1e6 * np.abs(e1 - e0)[:5].mean(), rel=1e-6)
    assert result["homo_mae_uEh"] == pytest.approx(1e6 * abs(e1[4] - e0[4]), rel=1e-6)
    assert result["lumo_mae_uEh"] == pytest.approx(1e6 * abs(e1[5] - e0[5]), rel=1e-6)
    gap = abs((e1[5] - e1[4]) - (e0[5] - e0[4]))
    assert result["gap_mae_uEh"] == pytest.approx(1e6 * gap, rel=1e-6)
    cosine = [
        abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(c0.T[:5], c1.T[:5], strict=True)
    ]
    assert result["psi_similarity"] == pytest.approx(np.mean(cosine), abs=1e-12)
    assert result["psi_similarity_s"] < 1
    p0, p1 = 2 * c0[:, :5] @ c0[:, :5].T, 2 * c1[:, :5] @ c1[:, :5].T
    assert result["density_error"] == pytest.approx(np.linalg.norm(p1 - p0), rel=1e-6)
    assert result["density_error_per_electron"] == pytest.approx(np.linalg.norm(p1 - p0) / 10, rel=1e-6)


def test_missing_overlap_gives_none_with_a_reason_and_never_zero() -> None:
    samples = [_sample(5, overlap=False)]
    result = errors(samples, _noisy(samples), BASIS)
    assert result["h_mae_uEh"] > 0
    for metric in FOCK_METRICS[3:]:
        assert result[metric] is None
        assert result["missing"][metric]


def test_prediction_that_is_not_finite_gives_nan() -> None:
    samples = [_sample(1), _sample(2)]
    predicted = _noisy(samples)
    predicted[1][0, 0] = np.nan
    result = errors(samples, predicted, BASIS)
    assert np.isnan(result["h_mae_uEh"])
    assert np.isnan(result["eps_occ_mae_uEh"])


def test_single_atom_and_open_shell() -> None:
    # Ten electrons fill all five functions: there is no LUMO.
    atom = _sample(6, (8,), charge=-2)
    result = errors([atom], _noisy([atom]), BASIS)
    assert result["h_mae_offdiagonal_uEh"] is None
    assert result["lumo_mae_uEh"] is None
    radical = _sample(7, (8, 1), spin=1)
    result = errors([radical], _noisy([radical]), BASIS)
    assert result["gap_mae_uEh"] > 0
    assert result["by_element"]["O"]["n_elements"] == 25


def test_wrong_shapes_are_refused() -> None:
    sample = _sample(1)
    with pytest.raises(InputError, match="shape"):
        errors([sample], [np.eye(3)], BASIS)
    with pytest.raises(InputError, match="2 predicted"):
        errors([sample], [np.eye(3)] * 2, BASIS)


def test_a_map_of_hundreds_of_shells_is_no_larger_than_a_page(tmp_path: Path) -> None:
    import matplotlib.image

    names = [f"X{k} {letter}" for k in range(50) for letter in "spdf"]
    table = {f"{a}-{b}": {"h_mae_uEh": 1.0} for a, b in itertools.pairwise(names)}
    plots.shell_pairs({"onsite": table, "offsite": table}, tmp_path / "map.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "map.png").shape
    assert max(height, width) < 6000


def test_plots_are_written(tmp_path: Path) -> None:
    samples = [_sample(k) for k in range(3)]
    predicted = _noisy(samples)
    result = errors(samples, predicted, BASIS)
    overlap = samples[0].matrices.overlap
    history = [{"energy_Eh": -1 - 10.0**-k, "gradient": 10.0**-k} for k in range(1, 7)]
    runs = {
        "minao": {"history": history, "energy_Eh": -1.0},
        "model": {"history": history[3:], "energy_Eh": -1.0},
    }
    atom = [_sample(6, (8,))]
    files = [
        plots.parity(samples, predicted, BASIS, tmp_path / "parity.png", errors=result),
        plots.levels(
            samples[0], predicted[0], tmp_path / "l.png", basis=BASIS, overlap=overlap, baseline="minao"
        ),
        plots.shell_pairs(result["by_shell_pair"], tmp_path / "shell_pairs.png"),
        plots.elements(result["by_element"], tmp_path / "elements.png"),
        plots.distances({"model": result["by_distance"]}, tmp_path / "distances.png"),
        plots.scf_convergence(runs, tmp_path / "scf.png", title="toy"),
        plots.parity(
            atom, _noisy(atom), BASIS, tmp_path / "atom.png", errors=errors(atom, _noisy(atom), BASIS)
        ),
    ]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size > 5000


def test_errors_by_distance_find_the_planted_one() -> None:
    places = np.array([[0.0, 0, 0], [0, 0, 3.5], [0, 0, 33.5]]) / ANGSTROM_PER_BOHR
    molecule = Molecule(np.array([8, 1, 1]), places, 0, 0)
    n = int(BASIS.offsets(molecule.numbers)[-1])
    sample = Sample("far", molecule, Matrices(np.eye(n), None, {}))
    predicted = np.eye(n)
    predicted[:5, 5:7] = predicted[5:7, :5].T[:] = 3e-6  # O-H at 3.5 Å
    predicted[5:7, 7:] = predicted[7:, 5:7] = 5e-6  # H-H at 30 Å; O-H at 33.5 Å is exact
    table = errors([sample], [predicted], BASIS, orbital_energies=False)["by_distance"]
    assert list(table) == ["3-4", ">15"]
    assert table["3-4"]["h_mae_uEh"] == pytest.approx(3.0)
    assert table[">15"]["h_mae_uEh"] == pytest.approx(5 * 8 / (8 + 20))
    assert [entry["n_elements"] for entry in table.values()] == [20, 28]


def test_the_table_of_elements_has_each_in_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure) or path)
    plots.elements({"H": {"h_mae_uEh": 12.0}, "Pt": {"h_mae_uEh": 345.6}}, tmp_path / "e.png")
    texts = {text.get_text(): text.get_position() for text in drawn[0].axes[0].texts}
    at = {name: (round(x - 0.47), round(y - 0.35, 1)) for name, (x, y) in texts.items()}
    expected = {
        "H": (1, 1), "He": (18, 1), "B": (13, 2), "Sc": (3, 4), "Zn": (12, 4), "La": (3, 7.3),
        "Lu": (3, 6), "Pt": (10, 6), "Rn": (18, 6), "Yb": (16, 7.3),
    }  # fmt: skip
    assert {name: at[name] for name in expected} == expected
    assert {"12", "346"} <= set(texts)
    with pytest.raises(InputError, match="no errors"):
        plots.elements({}, tmp_path / "e.png")


def test_the_picture_has_the_errors_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    samples = [_sample(0), _sample(1, (8, 8))]  # of two sizes: a mean over all elements is another number
    result = errors(samples, _noisy(samples), BASIS)
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure) or path)
    plots.parity(samples, _noisy(samples), BASIS, tmp_path / "parity.png", errors=result)
    texts = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    keys = ("h_mae_diagonal_uEh", "h_mae_offdiagonal_uEh")
    assert texts == [f"mean error {result[key]:.4g} µEh" for key in keys]


def test_every_metric_has_one_place_and_a_unit_in_its_key() -> None:
    units = {"µEh": "_uEh", "meV": "_meV", "meV/Å": "_meV_per_angstrom", "Debye": "_debye"}
    for key, metric in METRICS.items():
        assert metric.unit == "" or units[metric.unit] in key
        assert metric.meaning
    groups = (FOCK_METRICS, SPIN_METRICS, ENERGY_METRICS, FROM_FOCK_METRICS)
    assert set().union(*groups) == {key for key, metric in METRICS.items() if metric.needs != "precisions"}
    assert sum(map(len, groups)) == len(set().union(*groups))
