"""What every head and every part of the target must obey: a new one inherits it in three lines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from physics_tools import make_network, random_molecule, turn
from scipy.spatial.transform import Rotation

from helmol.graph import collate
from helmol.graph.blocks import assemble, table_of
from helmol.model import load_model, save_model
from helmol.system import Molecule
from helmol.target import PARTS, FockTarget, Sizes


def random_items(network, rng, n=4, numbers=(6, 1, 8, 1)):
    """Prepared molecules with random symmetric targets."""
    items = []
    for _ in range(n):
        molecule = random_molecule(rng, numbers)
        nao = network.domain.basis.offsets(molecule.numbers)[-1]
        matrix = rng.normal(size=(nao, nao))
        items.append(network.prepare(molecule, matrix + matrix.T))
    return items


class PartConformance:
    """A part of the target: a subclass names it.

    Attributes:
        name: key of :data:`helmol.target.PARTS`.
        setting: for the fit.
    """

    name: str
    setting: object = True

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls):
        """A network's items and the part that is fitted to them."""
        network, rng = make_network(torch.float64), np.random.default_rng(3)
        items = random_items(network, rng, n=6)
        part = PARTS[cls.name].fit(items, network.domain, Sizes(network.lmax, 28.0), cls.setting)
        return network, items, part

    def dense(self, network, part, molecule):
        """The part as a matrix."""
        batch = collate([network.prepare(molecule)])
        dims = [
            torch.zeros(len(b.index), 1, table_of(b.key).dim, dtype=torch.float64) if known is None else known
            for b, known in zip(batch.buckets, part(batch), strict=True)
        ]
        return assemble(dims, batch, network.domain.basis, n_spins=1)[0][0].numpy()

    def test_it_says_something(self, fitted):
        network, items, part = fitted
        assert np.abs(self.dense(network, part, items[0].molecule)).max() > 1e-3

    def test_what_is_subtracted_is_what_is_added(self, fitted):
        _, items, part = fitted
        rest, whole = part.subtract(items[0]), collate([items[0]])
        for bucket, known in zip(whole.buckets, part(whole), strict=True):
            left = torch.from_numpy(rest.buckets[bucket.key].target)
            torch.testing.assert_close(left if known is None else left + known, bucket.target)

    def test_its_numbers_stay_in_float64_and_come_back(self, fitted):
        network, items, part = fitted
        target = FockTarget(network.domain, Sizes(network.lmax, 28.0))
        target.parts[self.name] = part
        description = json.loads(json.dumps(target.description()))
        state = {name: value.clone() for name, value in target.float().state_dict().items()}
        assert {value.dtype for value in state.values()} == {torch.float64}
        again = FockTarget(network.domain, Sizes(network.lmax, 28.0), description)
        again.load_state_dict(state)
        molecule = items[1].molecule
        there = again.parts[self.name]
        assert (self.dense(network, there, molecule) == self.dense(network, part, molecule)).all()

    def test_it_turns_with_the_molecule_and_in_the_mirror(self, fitted):
        network, items, part = fitted
        molecule = items[2].molecule
        before, shells = self.dense(network, part, molecule), network.domain.basis.shells(molecule.numbers)
        rotation = Rotation.random(random_state=7).as_matrix()
        moved = replace(molecule, positions=molecule.positions @ rotation.T)
        np.testing.assert_allclose(
            self.dense(network, part, moved), turn(before, rotation, shells), atol=1e-9 * np.abs(before).max()
        )
        signs = np.concatenate([[(-1.0) ** l] * (2 * l + 1) for l in shells])
        mirrored = self.dense(network, part, replace(molecule, positions=-molecule.positions))
        np.testing.assert_allclose(
            mirrored, before * np.outer(signs, signs), atol=1e-9 * np.abs(before).max()
        )

    def test_renamed_atoms(self, fitted, rng):
        network, items, part = fitted
        molecule = items[3].molecule
        offsets, order = network.domain.basis.offsets(molecule.numbers), rng.permutation(molecule.n_atoms)
        orbitals = np.concatenate([np.arange(offsets[a], offsets[a + 1]) for a in order])
        renamed = Molecule(molecule.numbers[order], molecule.positions[order], molecule.charge)
        before = self.dense(network, part, molecule)
        np.testing.assert_allclose(
            self.dense(network, part, renamed), before[np.ix_(orbitals, orbitals)], atol=1e-10
        )


class HeadConformance:
    """A head of a model: a subclass names it and says how its output is compared.

    Attributes:
        name: key of :data:`helmol.model.heads.HEADS`.
        settings: of the head.
    """

    name: str
    settings: dict = {}

    def values(self, output, batch) -> list[torch.Tensor]:
        """Return numbers of an output that rotations, translations and the other molecules leave alone."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        """A model with this head alone, its weights random."""
        network = make_network(torch.float64, heads={cls.name: cls.settings})
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in network.heads[cls.name].parameters():
                weight += 0.1 * torch.randn_like(weight)
        return network

    def read(self, model, *molecules):
        """The values for a batch of molecules."""
        batch = collate([model.prepare(molecule) for molecule in molecules])
        with torch.no_grad():
            return self.values(model(batch, (self.name,)).heads[self.name], batch)

    def test_rotations_and_translations_leave_it(self, model, rng):
        molecule, rotation = random_molecule(rng), Rotation.random(random_state=2).as_matrix()
        moved = replace(molecule, positions=molecule.positions @ rotation.T + 3.0)
        for one, other in zip(self.read(model, molecule), self.read(model, moved), strict=True):
            assert one.abs().max() > 1e-6
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)

    def test_a_batch_is_its_molecules(self, model, rng):
        molecules = [random_molecule(rng), random_molecule(rng, (8, 1, 1))]
        apart = zip(*(self.read(model, molecule) for molecule in molecules), strict=True)
        for whole, parts in zip(self.read(model, *molecules), apart, strict=True):
            ordered = [torch.sort(values.flatten())[0] for values in (whole, torch.cat(parts))]
            torch.testing.assert_close(*ordered, rtol=1e-9, atol=1e-9)

    def test_it_is_saved_and_learnt(self, model, rng, tmp_path):
        save_model(tmp_path, model)
        again, molecule = load_model(tmp_path), random_molecule(rng)
        for one, other in zip(self.read(model, molecule), self.read(again, molecule), strict=True):
            assert torch.equal(one, other)
        batch = collate([again.prepare(molecule)])
        values = self.values(again.train()(batch, (self.name,)).heads[self.name], batch)
        sum(value.square().sum() for value in values).backward()
        unused = [name for name, weight in again.heads.named_parameters() if weight.grad is None]
        assert unused == []
