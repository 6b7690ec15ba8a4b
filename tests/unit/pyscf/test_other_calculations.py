"""A model serves SCFs of other bases, functionals and kinds; scanners take the best of three starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyscf import dft as pyscf_dft
from pyscf import gto, scf

import helmol.model
from helmol import dft
from helmol.basis import to_house
from helmol.errors import DomainError
from helmol.pyscf import attach
from scf_truth import LEVEL, Truth

# HF with exchange from a PBE density is as far as a start of another functional goes.
KINDS: dict[str, Callable[[gto.Mole], Any]] = {
    "UKS": lambda mole: pyscf_dft.UKS(mole, xc="pbe"),
    "ROKS": lambda mole: pyscf_dft.ROKS(mole, xc="pbe"),
    "RHF": scf.RHF,
    "UHF": scf.UHF,
    "PBE0": lambda mole: pyscf_dft.RKS(mole, xc="pbe0"),
    "r2SCAN, fitted": lambda mole: pyscf_dft.RKS(mole, xc="r2scan").density_fit(),
    "Newton": lambda mole: pyscf_dft.RKS(mole, xc="pbe").newton(),
    "Newton, UKS": lambda mole: pyscf_dft.UKS(mole, xc="pbe").newton(),
}


def of(make: Callable[[gto.Mole], Any], mole: gto.Mole) -> Any:
    """Return a mean field without a scratch file, on a small grid."""
    mf = make(mole)
    for each in filter(None, (mf, getattr(mf, "_scf", None))):
        if getattr(each, "_chkfile", None):
            each._chkfile.close()
        each.chkfile = None
        if hasattr(each, "grids"):
            each.grids.level = 0
    return mf.set(conv_tol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scf_starts_from_the_model(known: Truth, kind: str) -> None:
    plain, mf = of(KINDS[kind], known.mole), attach(of(KINDS[kind], known.mole), known.model)
    plain.kernel()
    mf.kernel()
    assert mf.helmol_info.used, mf.helmol_info.reason
    assert mf.helmol_info.start == "model"
    assert mf.converged
    assert mf.e_tot == pytest.approx(plain.e_tot, abs=1e-8)
    if "Newton" not in kind:
        assert mf.cycles < plain.cycles
    said = any("functional" in words for words in mf.helmol_info.beyond)
    assert said == (kind in ("RHF", "UHF", "PBE0", "r2SCAN, fitted"))


def test_newton_after_attaching(known: Truth) -> None:
    mf = attach(of(lambda mole: pyscf_dft.RKS(mole, xc="pbe"), known.mole), known.model).newton()
    mf.kernel()
    assert mf.converged
    assert mf.helmol_info.used
    assert mf.e_tot == pytest.approx(known.mf.e_tot, abs=1e-8)


@pytest.mark.parametrize(
    ("basis", "cart"),
    [("def2-tzvpd", False), ("6-31g", False), ("cc-pvdz", False), ("cc-pvdz", True), ("sto-3g", False)],
)
def test_in_another_basis_the_occupied_orbitals_are_projected(known: Truth, basis: str, cart: bool) -> None:
    molecule = known.mole.copy().build(basis=basis, cart=cart)
    make = lambda mole: pyscf_dft.RKS(mole, xc="pbe")  # noqa: E731
    plain, mf = of(make, molecule), attach(of(make, molecule), known.model)
    plain.kernel()
    mf.kernel()
    # Superposed atoms of a minimal basis are hard to beat.
    assert mf.helmol_info.used or basis == "sto-3g", mf.helmol_info.reason
    assert "the basis of the SCF" in mf.helmol_info.beyond[0]
    assert mf.e_tot == pytest.approx(plain.e_tot, abs=1e-7)
    assert mf.cycles < plain.cycles + (basis == "sto-3g")


def test_projection_there_and_back_is_the_same(water: Truth) -> None:
    occupied = dft.split_spins(water.mf.mo_coeff, water.mf.mo_occ)
    large = water.mole.copy().build(basis="def2-qzvp")
    small = water.mole.copy().build(basis="sto-3g")
    back = dft.in_basis(dft.in_basis(occupied, water.mole, large), large, water.mole)
    overlap = water.mole.intor_symmetric("int1e_ovlp")
    for first, second in zip(occupied, back, strict=True):
        assert abs(np.linalg.det(first.T @ overlap @ second)) == pytest.approx(1, abs=1e-5)
    there = dft.in_basis(occupied, water.mole, small)
    for orbitals in there:
        unit = orbitals.T @ small.intor_symmetric("int1e_ovlp") @ orbitals
        assert unit == pytest.approx(np.eye(5), abs=1e-12)
    rotated = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    turned = dft.in_basis((occupied[0] @ rotated, occupied[1]), water.mole, small)
    assert turned[0] @ turned[0].T == pytest.approx(there[0] @ there[0].T, abs=1e-10)


def test_other_core_potentials_and_lost_orbitals_are_refused(water: Truth) -> None:
    iodine = gto.M(atom="I 0 0 0; H 0 0 1.6", basis="def2-svp", ecp="def2-svp", verbose=0)
    bare = gto.M(atom="I 0 0 0; H 0 0 1.6", basis="sto-3g", verbose=0)
    orbitals = np.eye(iodine.nao)[:, :13]
    with pytest.raises(
        DomainError, match=r"atom 1 \(I\) has 53 electrons outside .* in the model's basis 25"
    ):
        dft.in_basis((orbitals, orbitals), iodine, bare)
    hydrogen = water.mole.copy().build(basis={"O": gto.basis.load("sto-3g", "H"), "H": "sto-3g"})
    occupied = dft.split_spins(water.mf.mo_coeff, water.mf.mo_occ)
    with pytest.raises(DomainError, match="cannot hold the occupied orbitals"):
        dft.in_basis(occupied, water.mole, hydrogen)


def test_numbers_of_electrons_by_hand_are_respected(known: Truth) -> None:
    mf = of(lambda mole: pyscf_dft.ROKS(mole, xc="pbe"), known.mole)
    mf.nelec = (6, 4)
    attach(mf.set(max_cycle=1), known.model).kernel()
    assert "6 electrons up and 4 down, the start 5 and 5" in mf.helmol_info.reason


class Moving:
    """A model that is right within some noise at every geometry of water."""

    def __init__(self, truth: Truth, size: float) -> None:
        self.asked, self.size, self.truth = 0, size, truth

    def __call__(self, _: object, molecules: list[Any], *__: object, **___: object) -> list[np.ndarray]:
        self.asked += len(molecules)
        found = []
        for molecule in molecules:
            mole = dft.build_mole(molecule, LEVEL)
            mf = dft.mean_field(mole, LEVEL)
            mf.kernel()
            noise = np.random.default_rng(self.asked).normal(size=(mole.nao, mole.nao)) * self.size
            found.append(to_house(mf.get_fock() + (noise + noise.T) / 2, dft.house_shells(mole), "pyscf"))
        return found


@pytest.mark.parametrize(
    ("noise", "step", "best"),
    [(1e-5, 0.2, "model"), (0.01, 0.002, "extrapolated density"), (10.0, 0.002, "extrapolated density")],
)
def test_a_scanner_takes_what_has_the_smallest_first_step(
    water: Truth, monkeypatch: pytest.MonkeyPatch, noise: float, step: float, best: str
) -> None:
    model = Moving(water, noise)
    monkeypatch.setattr(helmol.model, "predict_fock", model)
    scanner = attach(of(lambda mole: pyscf_dft.RKS(mole, xc="pbe"), water.mole), water.model).as_scanner()
    plain = of(lambda mole: pyscf_dft.RKS(mole, xc="pbe"), water.mole)
    infos = []
    for k in range(5):
        positions = water.mole.atom_coords() + np.diag([0, 0, step * k])
        moved = water.mole.set_geom_(positions, unit="Bohr", inplace=False)
        energy = scanner(moved)
        infos.append(scanner.helmol_info)
        assert scanner.converged
        if k == 4:
            plain.reset(moved)
            plain.kernel()
            assert energy == pytest.approx(plain.e_tot, abs=1e-8)
    assert infos[-1].start == best
    assert infos[-1].used == (best == "model")
    assert set(infos[-1].compared) == {"model", "last density", "extrapolated density"}
    # Looked at once each; then the best alone is built.
    assert infos[-1].hidden_fock_builds == 0
    assert model.asked == (5 if best == "model" else 2)


def test_a_scanner_goes_on_where_the_best_start_fails(water: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Moving(water, 1e-5)

    def fails_once(*arguments: Any, **settings: Any) -> list[np.ndarray]:
        found = model(*arguments, **settings)
        return [np.full_like(fock, np.nan) for fock in found] if model.asked == 4 else found

    monkeypatch.setattr(helmol.model, "predict_fock", fails_once)
    scanner = attach(of(lambda mole: pyscf_dft.RKS(mole, xc="pbe"), water.mole), water.model).as_scanner()
    starts = []
    for k in range(5):
        positions = water.mole.atom_coords() + np.diag([0, 0, 0.2 * k])
        scanner(water.mole.set_geom_(positions, unit="Bohr", inplace=False))
        assert scanner.converged
        starts.append(scanner.helmol_info)
    assert [info.start for info in starts[:4]] == ["model", "model", "model", "extrapolated density"]
    assert "not finite" in starts[3].reason
    assert starts[4].start == "extrapolated density"


def test_a_path_ends_where_the_molecule_is_another_one(known: Truth) -> None:
    scanner = attach(of(lambda mole: pyscf_dft.RKS(mole, xc="pbe"), known.mole), known.model).as_scanner()
    scanner(known.mole)
    other = gto.M(atom="N 0 0 0; H 0 0 1; H 0.9 0 -0.3; H -0.5 0.8 -0.3", basis="def2-svp", verbose=0)
    scanner(other)
    assert scanner.helmol_info.start == "minao"
    assert "not learnt N" in scanner.helmol_info.reason
