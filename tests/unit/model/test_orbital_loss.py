"""Losses in the true orbitals, against the dense matrices of a made-up data set."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helmol import properties
from helmol.errors import ConfigError, InputError
from helmol.graph import collate
from helmol.model import ModelConfig, build, fit_statistics, predict_fock
from helmol.model.losses.orbital import Orbitals, molecule_key, orbital_loss, true_orbitals
from helmol.target import Domain, target_matrix
from toy_store import BASIS, LEVEL, TINY, toy_samples

TARGET = "fock-minus-minao"


def unrestricted(sample, spin):
    """Split the spins of a made-up sample."""
    fock, reference = sample.matrices.fock, sample.matrices.references["minao"]
    split = 0.05 * np.diag(np.arange(len(fock)))
    matrices = replace(
        sample.matrices,
        fock=np.stack([fock - split, fock + split]),
        references={"minao": np.stack([reference] * 2)},
    )
    return replace(sample, molecule=replace(sample.molecule, spin=spin), matrices=matrices)


@pytest.fixture(scope="module", params=["rks", "uks"])
def case(request):
    """A network in float64, waters and hydroxides (of two spins, too) in one batch, their orbitals."""
    samples = toy_samples(3) + toy_samples(2, numbers=(8, 1), charge=-1)
    if request.param == "uks":
        samples = [unrestricted(s, 2 if k < 3 else 0) for k, s in enumerate(samples)]
    level = type(LEVEL)(**{**LEVEL.to_json(), "method": request.param})
    domain = Domain(level, BASIS, TARGET, (-1, 0), (0, 2))
    network = build(ModelConfig(**TINY), domain, seed=1, dtype=torch.float64)
    items = [network.prepare(s.molecule, target_matrix(s, TARGET)) for s in samples]
    rest = fit_statistics(network, items)
    orbitals = {molecule_key(s.molecule): true_orbitals(s, BASIS) for s in samples}
    return network, samples, collate(rest), orbitals


def errors_in_orbitals(case, kind):
    """The same numbers from the predicted matrices, one molecule at a time."""
    network, samples, _, orbitals = case
    matrices = predict_fock(network, [s.molecule for s in samples], [s.matrices.references for s in samples])
    values = []
    for sample, matrix in zip(samples, matrices, strict=True):
        state = orbitals[molecule_key(sample.molecule)]
        difference = np.atleast_3d((matrix - sample.matrices.fock).T).T
        for coefficients, n, one in zip(state.coefficients, state.n_occupied, difference, strict=True):
            error = coefficients.T @ one @ coefficients
            values.append(np.diag(error)[: n + 1] if kind == "energies" else error[:n].ravel())
    return np.sqrt(np.mean(np.square(np.concatenate(values)))) / float(network.fock_target.scale.unit)


@pytest.mark.parametrize("kind", ["energies", "occupied"])
def test_loss_is_the_error_of_the_matrix_in_the_true_orbitals(case, kind):
    network, _, batch, orbitals = case
    loss = orbital_loss(network(batch).fock, batch, orbitals, kind=kind, basis=BASIS)
    assert loss.item() == pytest.approx(errors_in_orbitals(case, kind), rel=1e-9)
    loss.backward()
    # There is no pair of two oxygens, whose read-out gets no gradient.
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert sum(bool(g.abs().max() > 0) for g in gradients) > 20
    network.zero_grad()


def test_orbitals_of_another_molecule_are_noticed(case):
    """The planted fault of the test above: the loss depends on whose orbitals it is given."""
    network, samples, batch, orbitals = case
    first, second = (molecule_key(s.molecule) for s in samples[:2])
    swapped = {**orbitals, first: orbitals[second], second: orbitals[first]}
    loss = orbital_loss(network(batch).fock, batch, swapped, basis=BASIS)
    assert loss.item() != pytest.approx(errors_in_orbitals(case, "energies"), rel=1e-7)


def test_diagonal_is_the_change_of_orbital_energies_to_first_order():
    sample = toy_samples(1)[0]
    state = true_orbitals(sample, BASIS)
    rng = np.random.default_rng(0)
    change = rng.normal(size=sample.matrices.fock.shape)
    change = 1e-6 * (change + change.T)
    before, _ = properties.orbitals(sample.matrices.fock, sample.matrices.overlap)
    after, _ = properties.orbitals(sample.matrices.fock + change, sample.matrices.overlap)
    diagonal = np.diag(state.coefficients[0].T @ change @ state.coefficients[0])
    assert state.n_occupied == (5,)
    np.testing.assert_allclose(diagonal[:5], (after - before)[:5], atol=1e-9)


def test_choice_of_orbitals_in_a_degenerate_level_does_not_matter(case):
    """Two levels are declared degenerate and mixed; the planted fault mixes two that are not."""
    network, _, batch, orbitals = case
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])

    def losses(first, *, declare):
        """Return the loss before and after mixing the orbitals ``first`` and ``first + 1`` everywhere."""
        values = []
        for mix in (np.eye(2), turn):
            changed = {}
            for key, state in orbitals.items():
                coefficients, levels = state.coefficients.copy(), state.levels.copy()
                coefficients[:, :, first : first + 2] = coefficients[:, :, first : first + 2] @ mix
                if declare:
                    levels[:, first + 1 :] -= 1
                changed[key] = replace(state, coefficients=coefficients, levels=levels)
            values.append(orbital_loss(network(batch).fock, batch, changed, basis=BASIS).item())
        return values

    lowest_unoccupied = min(n for state in orbitals.values() for n in state.n_occupied)
    for first in (1, lowest_unoccupied):
        before, after = losses(first, declare=True)
        assert after == pytest.approx(before, rel=1e-10)
    before, after = losses(1, declare=False)
    assert abs(after / before - 1) > 1e-4


def test_levels_are_told_apart_by_their_distance():
    sample = toy_samples(1)[0]
    n = len(sample.matrices.fock)
    mo_energy = np.arange(n) / 10.0
    mo_energy[3:] += 1e-6 - 0.1
    matrices = replace(sample.matrices, fock=np.diag(mo_energy), overlap=np.eye(n))
    levels = true_orbitals(replace(sample, matrices=matrices), BASIS).levels
    np.testing.assert_array_equal(levels[0, :5], [0, 1, 2, 2, 3])


def test_what_cannot_be_computed_is_refused(case):
    network, _, batch, orbitals = case
    with pytest.raises(ConfigError, match="unknown orbital loss 'all'"):
        orbital_loss(network(batch).fock, batch, orbitals, kind="all", basis=BASIS)
    sample = toy_samples(1)[0]
    bare = replace(sample, matrices=replace(sample.matrices, overlap=None))
    with pytest.raises(InputError, match="has none"):
        true_orbitals(bare, BASIS)
    assert isinstance(true_orbitals(sample, BASIS), Orbitals)
