"""Every head obeys what all must, and a new one is a class and a line in a table."""

import pytest
import torch
from torch import nn

from conformance import HeadConformance
from helmol.config import parse
from helmol.errors import ConfigError
from helmol.model import ModelConfig
from helmol.model.heads import HEADS, Head


class TestFock(HeadConformance):
    name = "fock"

    def values(self, output, batch):
        # What rotations leave alone: scalars, of atoms and, in their frames, of pairs.
        return [torch.cat([part[:, :, 0].flatten() for part in output.normalised])]


class TestEnergy(HeadConformance):
    name = "energy"
    settings = {"readout": "convolution"}

    def values(self, output, batch):
        return [output.energy]


class Charges(Head):
    """A number for each atom: the least that a new head needs."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, 1)

    @classmethod
    def make(cls, lmax, config, domain, settings):
        return cls(config.channels)

    def forward(self, features, target, ask):
        return self.linear(features.states.final[:, 0])[:, 0]


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The line in the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HEADS, "charges", Charges)
        yield


class TestCharges(HeadConformance):
    name = "charges"

    def values(self, output, batch):
        return [output]


def test_a_head_that_is_not_in_the_table_is_refused(monkeypatch):
    monkeypatch.delitem(HEADS, "charges")
    with pytest.raises(ConfigError, match="unknown head 'charges'; known: fock, energy"):
        parse(ModelConfig, {"heads": {"charges": {}}})
    with pytest.raises(ConfigError, match="needs a head"):
        parse(ModelConfig, {"heads": {}})
    with pytest.raises(ConfigError, match="did you mean 'readout'"):
        parse(ModelConfig, {"heads": {"energy": {"readuot": "linear"}}})


def test_two_heads_read_the_same_nodes(rng):
    from physics_tools import make_network, random_molecule

    from helmol.graph import collate

    network = make_network(torch.float64, heads={"fock": {}, "charges": {}})
    batch = collate([network.prepare(random_molecule(rng))])
    both, alone = network(batch), network(batch, ("charges",))
    assert set(both.heads) == {"fock", "charges"}
    assert torch.equal(both.heads["charges"], alone.heads["charges"])
    with pytest.raises(ConfigError, match="no energy head"):
        network(batch, ("energy",))
