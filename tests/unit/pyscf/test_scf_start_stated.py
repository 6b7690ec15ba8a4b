"""An attached SCF says what happened last, respects what its user asks for, and can be sent elsewhere."""

from __future__ import annotations

import copy
import multiprocessing
import operator
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from pyscf import dft as pyscf_dft
from pyscf import qmmm
from pyscf.pbc import dft as pbc_dft
from pyscf.pbc import gto as pbc_gto

from helmol import dft
from helmol.errors import DomainError, InputError
from helmol.model import ModelConfig, build
from helmol.predict import TrainedModel
from helmol.pyscf import attach
from helmol.system import Molecule
from scf_truth import Truth, answer

ACETATE = Molecule.from_angstrom(
    [6, 6, 8, 8, 1, 1, 1],
    [
        [-1.31, 0, 0], [0.22, 0, 0], [0.78, 1.14, 0], [0.78, -1.14, 0], [-1.68, 1.02, 0.1],
        [-1.7, -0.6, 0.83], [-1.68, -0.43, -0.95],
    ],
    charge=-1,
)  # fmt: skip


def in_a_solvent(mf: pyscf_dft.rks.RKS) -> pyscf_dft.rks.RKS:
    mf = mf.PCM()
    mf.with_solvent.lebedev_order = 5
    return mf


def test_the_information_is_that_of_the_last_kernel(known: Truth) -> None:
    mf = attach(known.scf(), known.model)
    assert mf.helmol_info is None
    mf.kernel()
    assert mf.helmol_info.used
    mf.kernel()
    assert not mf.helmol_info.used
    assert "orbitals to start from" in mf.helmol_info.reason
    mf.mo_coeff = None
    mf.kernel()
    assert mf.helmol_info.used
    mf.get_init_guess(key="hcore")
    assert mf.helmol_info.used
    mf.kernel(dm0=known.mf.make_rdm1())
    assert not mf.helmol_info.used
    mf.mo_coeff, mf.xc = None, "pbe0"
    mf.kernel()
    assert "PBE0" in mf.helmol_info.beyond[0]
    mf.mo_coeff, mf.xc = None, "pbe"
    mf.kernel()
    assert mf.helmol_info.beyond == ()


def test_a_refusal_without_fallback_is_said_too(known: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    mf = attach(known.scf(), known.model, fallback=False)
    mf.kernel()
    answer(monkeypatch, known, -known.fock)
    mf.mo_coeff = None
    with pytest.raises(DomainError, match="start is refused: its first step moves"):
        mf.kernel()
    assert "its first step moves" in mf.helmol_info.reason


@pytest.mark.parametrize("guess", ["atom", "chkfile", "minoa", np.eye(24)])
def test_a_start_of_ones_own_before_attaching_is_refused(known: Truth, guess: object) -> None:
    with pytest.raises(InputError, match="a start of your own: set it to 'minao'"):
        attach(known.scf(init_guess=guess), known.model)
    attach(known.scf(init_guess="minao"), known.model)


@pytest.mark.parametrize("guess", ["minao", "HCORE", "1e", "vsap"])
def test_a_guess_named_after_attaching_is_used(known: Truth, guess: str) -> None:
    plain, mf = known.scf(init_guess=guess), attach(known.scf(), known.model)
    mf.init_guess = guess
    plain.kernel()
    mf.kernel()
    assert mf.helmol_info.reason == f"the guess {guess!r} was asked for"
    assert mf.cycles == plain.cycles


def test_an_array_and_a_misspelt_guess(known: Truth) -> None:
    mf = attach(known.scf(), known.model)
    mf.init_guess = known.mf.make_rdm1()
    mf.kernel()
    assert "is an array" in mf.helmol_info.reason
    assert mf.cycles == 1
    mf.mo_coeff, mf.init_guess = None, "minoa"
    with pytest.raises(InputError, match="unknown init_guess 'minoa': PySCF has minao, atom"):
        mf.kernel()


VARIANTS: dict[str, Callable[[pyscf_dft.rks.RKS], pyscf_dft.rks.RKS]] = {
    "plain": lambda mf: mf,
    "density fitting": lambda mf: mf.density_fit(),
    "second order": lambda mf: mf.newton(),
    "in a solvent": lambda mf: in_a_solvent(mf),
    "scanner": lambda mf: mf.as_scanner(),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("send", [copy.copy, copy.deepcopy, lambda mf: pickle.loads(pickle.dumps(mf))])
def test_attached_objects_are_copied_and_pickled(
    known: Truth, name: str, send: Callable[[pyscf_dft.rks.RKS], pyscf_dft.rks.RKS]
) -> None:
    for mf in (
        VARIANTS[name](attach(known.scf(), known.model)),
        attach(VARIANTS[name](known.scf()), known.model),
    ):
        sent = send(mf)
        assert type(sent) is type(mf)
        energy = sent(known.mole) if name == "scanner" else sent.kernel()
        # A scanner that was there before the model keeps PySCF's own way.
        assert sent.helmol_info.used
        assert mf.helmol_info is None
        again = send(sent)
        assert again.helmol_info == sent.helmol_info
        assert again.e_tot == energy


def test_another_process_runs_it(water: Truth) -> None:
    config = ModelConfig(channels=4, n_layers=1, radial_channels=4)
    mf = attach(water.scf(), TrainedModel(build(config, water.model.domain)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (done,) = pool.map(operator.methodcaller("run"), [mf])
    assert done.e_tot == pytest.approx(water.mf.e_tot, abs=1e-7)
    # Weights at random are no start; that it was asked and refused is what came back.
    assert "electrons break the symmetry of the molecule" in done.helmol_info.reason
    assert mf.helmol_info is None


def in_a_field(mf: pyscf_dft.rks.RKS) -> pyscf_dft.rks.RKS:
    core = mf.get_hcore() + 0.005 * mf.mol.intor("int1e_r")[2]
    mf.get_hcore = lambda *_: core
    return mf


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_a_solvent, "a solvent (PCM)"),
        (lambda mf: qmmm.mm_charge(mf, [(6.0, 0, 0)], [0.5]), "1 point charges"),
        (in_a_field, "an external field?"),
        (lambda mf: mf.x2c(), "relativistic terms (X2C)"),
    ],
)
def test_surroundings_are_used_under_the_guard_and_said(
    known: Truth, change: Callable[[pyscf_dft.rks.RKS], pyscf_dft.rks.RKS], words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    plain, mf = change(known.scf()), attach(change(known.scf()), known.model)
    plain.kernel()
    for _ in range(2):
        mf.mo_coeff = None
        mf.kernel()
    assert mf.helmol_info.used
    assert words in mf.helmol_info.beyond[0]
    assert mf.helmol_info.moved > 1e-6
    assert mf.e_tot == pytest.approx(plain.e_tot, abs=1e-7)
    # Said once as long as it stays the same.
    assert caplog.text.count("the model does not know of") == 1


def test_a_functional_of_ones_own_and_periodic_cells(known: Truth, caplog: pytest.LogCaptureFixture) -> None:
    mf = known.scf(max_cycle=1)
    mf.define_xc_(lambda _, rho, *__, **___: (0.01 * rho**2, (0.03 * rho**2, *[None] * 3), None, None))
    attach(mf, known.model).kernel()
    assert "a functional of its own (define_xc_)" in mf.helmol_info.beyond[0]
    cell = pbc_gto.M(atom="He 0 0 0", a=4 * np.eye(3), basis="sto-3g", verbose=0)
    periodic = pbc_dft.RKS(cell)
    periodic._chkfile.close()
    with pytest.raises(InputError, match="periodic cell: helmol knows molecules only"):
        attach(periodic, known.model)


def test_a_start_hardly_better_than_pyscfs_own_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    acetate = Truth(ACETATE)
    moved = {}
    for size in (0.003, 0.05):
        answer(monkeypatch, acetate, acetate.noisy(size))
        # The start is all that matters here.
        mf = attach(acetate.scf(max_cycle=0), acetate.model)
        mf.kernel()
        moved[size] = mf.helmol_info
    assert moved[0.003].used
    info = moved[0.05]
    assert 2.0 < info.moved < info.moved_fallback < 3.5
    assert not info.used
    assert "its first step moves" in info.reason


def test_where_superposed_atoms_are_nearly_exact_a_small_error_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argon = Truth(Molecule.from_angstrom([18, 18], [[0, 0, 0], [0, 0, 3.76]]))
    answer(monkeypatch, argon, argon.noisy(0.01))
    # Nor is the noise symmetric.
    monkeypatch.setattr("helmol.pyscf.start.SYMMETRIC", 1.0)
    mf = attach(argon.scf(), argon.model)
    mf.kernel()
    info = mf.helmol_info
    assert info.moved < 0.001 * argon.mole.nelectron
    assert 0.1 * info.moved_fallback < info.moved
    assert not info.used
    # The build at the model's density is lost, no other.
    assert info.hidden_fock_builds == 1
    assert mf.cycles == argon.mf.cycles


@pytest.mark.parametrize(
    ("share", "settings", "points"),
    [(0.002, {}, 1), (2.0, {}, 0), (0.002, {"diis_start_cycle": 3}, 0)],
)
def test_the_build_of_the_guard_is_the_first_point_of_diis(
    water: Truth, monkeypatch: pytest.MonkeyPatch, share: float, settings: dict[str, int], points: int
) -> None:
    answer(monkeypatch, water, water.fock + share * (water.mf.get_hcore() - water.fock))
    mf = attach(water.scf(max_cycle=1, **settings), water.model)
    mf.diis = mf.DIIS(mf)
    mf.kernel()
    assert mf.helmol_info.used == (share < 1)
    # PySCF's own cycles give it nothing before the second one.
    assert mf.diis.get_num_vec() == points
    if points:
        density = mf.get_init_guess()
        assert mf.diis.get_vec(0).reshape(24, 24) == pytest.approx(mf.get_fock(dm=density), abs=1e-9)
        plain, mf = water.scf(), attach(water.scf(), water.model)
        plain.kernel(dm0=density)
        mf.kernel()
        assert mf.cycles <= plain.cycles
        assert mf.e_tot == pytest.approx(plain.e_tot, abs=1e-8)


def test_a_start_that_breaks_the_symmetry_of_the_molecule_costs_nothing(
    water: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is flat, and noise knows nothing of that.
    answer(monkeypatch, water, water.noisy(0.001))
    mf = attach(water.scf(), water.model)
    mf.kernel()
    assert "electrons break the symmetry of the molecule" in mf.helmol_info.reason
    assert mf.helmol_info.hidden_fock_builds == 0
    assert mf.cycles == water.mf.cycles
    overlap, guess = water.mf.get_ovlp(), np.asarray(water.mf.get_init_guess())
    for density in (guess, np.asarray(water.mf.make_rdm1()), np.stack([guess, guess]) / 2):
        assert dft.asymmetry(density, water.mole, overlap) < 1e-7
    # The highest orbital stands on the plane, the next one lies in it.
    coeff, sin, cos = water.mf.mo_coeff.copy(), np.sin(0.1), np.cos(0.1)
    coeff[:, 4] = cos * coeff[:, 4] + sin * coeff[:, 5]
    turned = 2 * coeff[:, :5] @ coeff[:, :5].T
    mixed = dft.asymmetry(turned, water.mole, overlap)
    assert mixed == pytest.approx(2 * (sin * cos) ** 2, rel=1e-3)


def test_a_closed_shell_is_no_start_where_spins_may_part(
    known: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    mf = pyscf_dft.UKS(known.mole, xc="pbe")
    mf._chkfile.close()
    mf = attach(mf.set(max_cycle=0, chkfile=None), known.model)
    mf.init_guess_breaksym = "mix"
    mf.kernel()
    assert "asks for broken spin symmetry" in mf.helmol_info.reason
    assert mf.helmol_info.hidden_fock_builds == 0
    mf.init_guess_breaksym, mf.mo_coeff = 1, None
    monkeypatch.setattr("helmol.pyscf.start.OPEN_GAP", 0.2)
    mf.kernel()
    assert mf.helmol_info.used
    mf.mo_coeff = None
    monkeypatch.setattr("helmol.pyscf.start.OPEN_GAP", 0.5)
    mf.kernel()
    assert "a closed shell with a gap of 0." in mf.helmol_info.reason
    assert mf.helmol_info.hidden_fock_builds == 1
