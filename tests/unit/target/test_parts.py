"""Every part of the target obeys what all must, and a new one is a class and a line in a table."""

import numpy as np
import pytest
import torch
from physics_tools import make_network

from conformance import PartConformance, random_items
from helmol.graph import collate
from helmol.model import fit_statistics, hamiltonian_loss, load_model, predict_fock, save_model
from helmol.target import PARTS, Part
from helmol.target.parts import OfElements


class TestMeans(PartConformance):
    name = "means"


class TestLinear(PartConformance):
    name = "linear"
    setting = "small"


class Shift(Part):
    """One number per element on the diagonal of its s shells: the least that a new part needs."""

    def __init__(self, basis, n_spins):
        super().__init__()
        self.elements = OfElements(basis, n_spins, 0.0)

    @classmethod
    def fit(cls, items, domain, sizes, setting):
        part = cls(domain.basis, domain.n_spins)
        for number in domain.basis.elements:
            part.elements.of(number)[:, 0] = 0.25 * number
        return part

    @classmethod
    def blank(cls, description, domain, sizes):
        return cls(domain.basis, domain.n_spins)

    def description(self):
        return {}

    def forward(self, batch):
        return [self.elements(b, batch.numbers) if len(b.key) == 1 else None for b in batch.buckets]


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The line in the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PARTS, "shift", Shift)
        yield


class TestShift(PartConformance):
    name = "shift"


def test_a_new_part_is_fitted_subtracted_added_and_saved(rng, tmp_path):
    network = make_network(torch.float64)
    items = random_items(network, rng)
    rest = fit_statistics(network, items)
    assert list(network.fock_target.parts) == ["means", "shift"]
    taken = items[0].buckets[((0, 0, 1),)].target - rest[0].buckets[((0, 0, 1),)].target
    means = network.fock_target.parts["means"].elements.of(1)[0].numpy()
    np.testing.assert_allclose(taken[0, 0] - means, [0.25, *[0.0] * (len(means) - 1)], atol=1e-12)
    save_model(tmp_path, network)
    again, molecule = load_model(tmp_path), items[0].molecule
    before, after = (predict_fock(model, [molecule], [{}])[0] for model in (network, again))
    assert (before == after).all()
    # The planted fault: a prediction without the part is another one by what the part says.
    del again.fock_target.parts["shift"]
    assert np.abs(predict_fock(again, [molecule], [{}])[0] - before).max() > 0.1
    assert hamiltonian_loss(network(collate(rest)).fock, collate(rest)) > 0
