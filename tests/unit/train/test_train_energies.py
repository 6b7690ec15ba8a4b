"""Training on energies and forces: from nothing, from a run, frozen, with Fock matrices."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from energy_store import energy_samples, energy_settings, make_energy_store, morse
from helmol.config import parse
from helmol.errors import ConfigError, DomainError, InputError
from helmol.evaluate import ENERGY_METRICS
from helmol.evaluate.energies import energy_errors, evaluate_energies, read_label
from helmol.model import build, describe_model, find_model, load_model, predict_energies, predict_fock
from helmol.store import Store
from helmol.train import TrainConfig, launch, loop, metrics, run
from helmol.train.plan import make_plan
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE
from toy_store import LEVEL, TINY, make_store, settings, toy_samples

LARGER = {
    "model": {**TINY, "channels": 8, "n_radial": 16, "radial_channels": 16, "cutoff": 10.0},
    "edges_per_batch": 60, "ema_decay": 0.9,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_energy_store(tmp_path_factory.mktemp("energies") / "toy.h5")


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """A run on Fock matrices."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    run(parse(TrainConfig, settings(data)), out=out)
    return out


def config(data, **changes):
    return parse(TrainConfig, energy_settings(data, **changes))


def weights(run):
    return load_model(run / "checkpoints/last").state_dict()


def test_the_made_up_forces_are_the_derivative():
    molecule = energy_samples(2)[2].molecule
    energy, forces = morse(molecule)
    moved = np.array(molecule.positions)
    moved[1, 2] += 1e-6
    assert (energy - morse(replace(molecule, positions=moved))[0]) / 1e-6 == pytest.approx(
        forces[1, 2], abs=1e-6
    )


@pytest.mark.parametrize(
    ("forces", "readout", "energy_share", "force_share"),
    [("conservative", "linear", 0.8, 0.95), ("direct", "convolution", 1.05, 0.75)],
)
def test_energies_and_forces_are_learnt(data, tmp_path, forces, readout, energy_share, force_share):
    changes = {"max_steps": 60, "validate_every": 30, "force_weight": 1.0, "forces": forces, "lr": 0.01}
    result = run(config(data, **changes, **LARGER, readout=readout), out=tmp_path / "run")
    start, last = result["start"], result["last"]
    # Direct forces come from features of their own, and these few steps teach their energies little.
    assert last["energy_mae_meV"] < energy_share * start["energy_mae_meV"]
    assert last["force_mae_meV_per_angstrom"] < force_share * start["force_mae_meV_per_angstrom"]
    rows = metrics.read(tmp_path / "run/metrics.csv")
    assert rows[-1]["val_energy_mae_meV"] == last["energy_mae_meV"]
    assert result["best"]["energy_mae_meV"] == min(row["val_energy_mae_meV"] for row in rows)
    card = (tmp_path / "run/card.md").read_text()
    assert f"{forces} forces" in card
    assert "| energy / meV |" in card


def test_the_head_starts_at_the_reference_and_says_so(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="helmol.train"):
        result = run(config(data), out=tmp_path / "run")
    assert "step 0, validation: E" in caplog.text
    with Store.open(data) as store:
        labels = [read_label(store, row) for row in range(len(store))]
    table = evaluate_energies(load_model(tmp_path / "run/checkpoints/best"), labels)
    assert table["baselines"]["elements"]["energy_mae_meV"] == pytest.approx(
        result["start"]["energy_mae_meV"], rel=1.0
    )
    assert set(ENERGY_METRICS) <= table.keys()


def test_a_frozen_backbone_does_not_move(data, pretrained, tmp_path):
    out = tmp_path / "run"
    run(config(data, init=str(pretrained), freeze=True, force_weight=0.1), out=out)
    before, after = load_model(find_model(pretrained)).state_dict(), weights(out)
    kept = [name for name in after if name.startswith("backbone.")]
    assert kept
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert after["heads.energy.readout.0.weight"].abs().max() > 0


def test_fine_tuning_moves_the_backbone_after_the_warm_up(data, pretrained, tmp_path):
    before = load_model(find_model(pretrained)).state_dict()
    moved = {}
    for name, changes in {
        "warm-up alone": {"max_steps": 4, "head_warmup_steps": 4},
        "slowly": {"backbone_lr_factor": 0.01},
        "freely": {},
    }.items():
        out = tmp_path / name.replace(" ", "-")
        run(config(data, init=str(pretrained), **changes), out=out)
        after = weights(out)
        moved[name] = max(
            (after[n] - before[n]).abs().max().item() for n in after if n.startswith("backbone.")
        )
    assert moved["warm-up alone"] == 0
    assert 0 < moved["slowly"] < 0.1 * moved["freely"]


def test_the_network_is_that_of_init(data, pretrained, tmp_path):
    out = tmp_path / "run"
    run(config(data, init=str(pretrained), preset="large", model={}), out=out)
    mine, theirs = describe_model(out / "checkpoints/best")[0], describe_model(find_model(pretrained))[0]
    assert (mine.channels, mine.cutoff) == (theirs.channels, theirs.cutoff)
    with pytest.raises(ConfigError, match=r"model\.channels is 6, but 4"):
        make_plan(config(data, init=str(pretrained), model={"channels": 6}))


def test_both_at_once(data, tmp_path):
    out = tmp_path / "run"
    model = {"channels": 8}
    first = config(data, task="both", force_weight=0.5, max_steps=100, validate_every=50, model=model)
    result = run(first, out=out)
    for key in ("h_mae_uEh", "energy_mae_meV", "force_mae_meV_per_angstrom"):
        assert 0 < result["last"][key] < 0.995 * result["start"][key]
    network = load_model(out / "checkpoints/best")
    with Store.open(data) as store:
        sample = store[0]
    assert predict_fock(network, [sample.molecule], [sample.matrices.references])[0].shape == (13, 13)
    assert predict_energies(network, [sample.molecule])[0].forces.shape == (3, 3)
    again = run(config(data, task="both", init=str(out), max_steps=4, model=model), out=tmp_path / "again")
    assert again["start"]["h_mae_uEh"] == pytest.approx(result["best"]["h_mae_uEh"], rel=1e-5)
    assert again["start"]["energy_mae_meV"] == pytest.approx(result["best"]["energy_mae_meV"], rel=1e-4)


def test_diagonal_blocks_alone(data, tmp_path):
    for blocks in ("all", "diagonal"):
        run(parse(TrainConfig, settings(data, blocks=blocks)), out=tmp_path / blocks)
    network = load_model(tmp_path / "all/checkpoints/best")
    start = build(network.config, network.domain, seed=0).state_dict()
    moved = {
        blocks: {
            name
            for name, weight in weights(tmp_path / blocks).items()
            if not name.startswith("targets.") and not torch.equal(weight, start[name])
        }
        for blocks in ("all", "diagonal")
    }
    assert any(name.startswith("backbone.edge_blocks") for name in moved["all"])
    assert not any(name.startswith("backbone.edge_blocks") for name in moved["diagonal"])
    assert any(name.startswith("backbone.node_blocks") for name in moved["diagonal"])


def test_energies_of_another_zero_are_refused(data, tmp_path):
    run(config(data), out=tmp_path / "first")
    other = make_energy_store(tmp_path / "shifted.h5", energy_samples(shift=0.3))
    with pytest.raises(ConfigError, match="another level of theory or zero"):
        run(config(other, init=str(tmp_path / "first")), out=tmp_path / "second")
    result = run(config(other, init=str(tmp_path / "first"), new_head=True), out=tmp_path / "third")
    assert result["start"]["energy_mae_meV"] < 1e4


def test_a_hamiltonian_of_another_kind_is_refused(data, pretrained, tmp_path):
    with pytest.raises(ConfigError, match="target"):
        run(config(data, task="both", init=str(pretrained), target="fock"), out=tmp_path / "a")
    blyp = make_energy_store(
        tmp_path / "blyp.h5", level=replace(LEVEL, xc="blyp", xc_resolved="1*106 + 1*131")
    )
    with pytest.raises(ConfigError, match="blyp"):
        run(config(blyp, task="both", init=str(pretrained)), out=tmp_path / "b")


def test_a_run_on_energies_cannot_start_fock_matrices(data, tmp_path):
    """Its network has no edge blocks."""
    run(config(data, max_steps=2), out=tmp_path / "energies")
    for task in ("both", "hamiltonian"):
        with pytest.raises(ConfigError, match=f"learnt energies alone .* task {task} needs"):
            run(config(data, task=task, init=str(tmp_path / "energies")), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"force_weight": 1.0}, False),
        ({"force_weight": 1.0, "forces": "direct"}, False),
        ({"task": "both"}, False),
        ({"force_weight": 1.0, "readout": "elements"}, True),
    ],
)
def test_an_untrained_start_is_the_best_of_energies_alone(data, tmp_path, monkeypatch, changes, kept):
    """Energies choose the best; where more is learnt they must not choose a head of zeros."""
    monkeypatch.setattr(launch, "train", lambda state, around: state.save(last, around.fingerprint))
    last = tmp_path / "run/checkpoints/last"
    monkeypatch.setattr(launch, "settle_floor", lambda *_: None)
    monkeypatch.setattr(launch, "plot_learning_curve", lambda _: None)
    result = run(config(data, **changes), out=tmp_path / "run")
    assert result["start"]["energy_mae_meV"] > 0
    assert ("energy_mae_meV" in result["best"]) == kept
    assert (tmp_path / "run/checkpoints/best").is_dir() == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": True}, "freeze keeps the backbone of init"),
        ({"energy_weight": 0.0}, "nothing to learn"),
        ({"forces": "direct"}, "force_weight must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(data, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(data, **changes)


def test_missing_labels_are_named(data, tmp_path):
    bare = make_store(tmp_path / "bare.h5", toy_samples(30))
    with pytest.raises(InputError, match=r"has no energy \(28 of 28 molecules lack it\)"):
        run(config(bare), out=tmp_path / "run")
    no_forces = [replace(sample, forces=None) for sample in energy_samples()]
    with pytest.raises(InputError, match="has no forces"):
        run(config(make_energy_store(tmp_path / "f.h5", no_forces), force_weight=1.0), out=tmp_path / "run")


def test_a_resumed_run_ends_in_the_same_numbers(data, pretrained, tmp_path, monkeypatch):
    changes = {"init": str(pretrained), "force_weight": 1.0, "head_warmup_steps": 3}
    whole = run(config(data, **changes), out=tmp_path / "whole")
    count = loop._count

    def power_cut(counters, *args):
        if counters.step == 7:
            raise RuntimeError("power cut")
        return count(counters, *args)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_count", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            run(config(data, **changes), out=tmp_path / "cut")
    resumed = run(config(data, **changes), out=tmp_path / "cut")
    assert resumed["resumed_from"] == 4
    assert resumed["last"]["energy_mae_meV"] == whole["last"]["energy_mae_meV"]
    assert resumed["start"] == whole["start"] | {"seconds": resumed["start"]["seconds"]}


def test_errors_have_their_units(data):
    with Store.open(data) as store:
        labels = [read_label(store, row) for row in (0, 1, 25)]
    right = [(label.energy, label.forces) for label in labels]
    assert energy_errors(labels, right)["energy_mae_meV"] == 0
    wrong = [(e + 1e-3, f + 1e-3) for e, f in right]
    table = energy_errors(labels, wrong)
    assert table["energy_mae_meV"] == pytest.approx(EV_PER_HARTREE)
    assert table["energy_bias_meV"] == pytest.approx(EV_PER_HARTREE)
    assert table["energy_mae_meV_per_atom"] == pytest.approx(EV_PER_HARTREE * (2 / 3 + 1 / 4) / 3)
    assert table["force_mae_meV_per_angstrom"] == pytest.approx(EV_PER_ANGSTROM_PER_AU)
    assert energy_errors(labels, [(e, None) for e, _ in right])["force_mae_meV_per_angstrom"] is None


def test_one_composition_is_learnt_and_others_are_refused(tmp_path, caplog):
    samples = [sample for sample in energy_samples(30) if sample.molecule.n_atoms == 3]
    data = make_energy_store(tmp_path / "water.h5", samples)
    run(config(data), out=tmp_path / "run")
    assert "will refuse other compositions" in caplog.text
    network = load_model(tmp_path / "run/checkpoints/best")
    with pytest.raises(DomainError, match="not determined"):
        predict_energies(network, [energy_samples(2)[2].molecule])
