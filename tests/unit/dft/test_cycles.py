"""Cheap cycles: the results of PySCF's own ones, with a few evaluations on the mean field's own grid."""

import copy
import io
import logging
import pickle

import numpy as np
import pytest
from pyscf import dft, gto, qmmm, scf
from pyscf.scf import chkfile

from helmol.dft import two_grids
from helmol.dft.cycles import accelerate
from helmol.dft.densities import silence
from helmol.errors import InputError

WATER = "O 0.1 0.2 -0.3; H 0.8 0.5 0.1; H -0.6 0.7 0.3"
HYDROXYL = "O 0 0 0; H 0.1 0 0.97"
FORMALDEHYDE = "C 0 0 -0.53; O 0.02 0 0.68; H 0 0.93 -1.11; H 0.05 -0.94 -1.1"


def field(atoms=WATER, xc="pbe", *, basis="6-31g", fit=False, tight=False, **settings):
    """Return an RKS or, for a radical, UKS object that keeps no scratch file."""
    mole = gto.M(atom=atoms, basis=basis, verbose=0, spin=None, **settings)
    mf = (dft.UKS if mole.spin else dft.RKS)(mole, xc=xc)
    silence(mf)
    mf.grids.level = 2
    if mf.do_nlc():
        mf.nlcgrids.level = 0
    if fit:
        mf = mf.density_fit()
    if tight:
        mf.conv_tol, mf.conv_tol_grad = 1e-11, 1e-6
    return mf


def forces(mf):
    gradient = mf.nuc_grad_method()
    gradient.verbose = 0
    return -gradient.kernel()


def same(mine, plain, *, energy=1e-8, density=1e-5):
    """Require the same state."""
    assert mine.converged
    assert mine.e_tot == pytest.approx(plain.e_tot, abs=energy)
    np.testing.assert_allclose(mine.make_rdm1(), plain.make_rdm1(), atol=density)
    np.testing.assert_allclose(mine.mo_energy, plain.mo_energy, atol=density)
    np.testing.assert_array_equal(mine.mo_occ, plain.mo_occ)
    assert mine.energy_tot() == pytest.approx(mine.e_tot, abs=1e-9)


CASES = {
    "pbe fitted": dict(fit=True),
    "pbe": {},
    "radical fitted": dict(atoms=HYDROXYL, fit=True),
    "radical, hybrid": dict(atoms=HYDROXYL, xc="b3lyp"),
    "hybrid fitted": dict(xc="pbe0", fit=True),
    "range separation": dict(xc="camb3lyp"),
    "short-range exchange, fitted": dict(xc="hse06", fit=True),
    "meta-GGA": dict(xc="r2scan", fit=True),
    "non-local correlation": dict(xc="wb97m-v", basis="sto-3g", fit=True),
    "LDA": dict(xc="lda,vwn", fit=True),
    "symmetry": dict(atoms="O 0 0 0; H 0 0.76 0.59; H 0 -0.76 0.59", symmetry=True, fit=True),
    "core potential": dict(atoms="H 0 0 0; I 0 0.2 1.6", basis="def2-svp", ecp="def2-svp", fit=True),
}


@pytest.mark.parametrize("name", CASES)
def test_energy_orbitals_and_forces_are_pyscfs(name):
    plain, mine = (field(tight=True, **CASES[name]) for _ in range(2))
    plain.kernel()
    assert accelerate(mine) is mine
    mine.kernel()
    info = mine.helmol_cycles
    assert info.used, info.reason
    assert info.fine_evaluations <= 4 < plain.cycles
    assert info.gradient <= 1e-6
    assert mine.cycles == info.coarse_cycles > 4
    same(mine, plain, density=3e-6)
    np.testing.assert_allclose(forces(mine), forces(plain), atol=1e-6)


def test_pyscfs_own_tolerances_take_two_evaluations():
    plain, mine = (
        field(FORMALDEHYDE, basis="def2-svp", fit=True),
        field(FORMALDEHYDE, basis="def2-svp", fit=True),
    )
    plain.grids.level = mine.grids.level = 3
    plain.kernel()
    accelerate(mine).kernel()
    assert mine.helmol_cycles.fine_evaluations == 2
    same(mine, plain, density=3e-5)


def test_solvent_charges_and_own_functionals():
    changes = {
        "solvent": lambda mf: mf.PCM(),
        "charges": lambda mf: qmmm.mm_charge(mf, np.array([[3.0, 0, 0]]), np.array([0.5])),
        "relativity": lambda mf: mf.x2c(),
        "functional": lambda mf: mf.define_xc_("0.5*b88 + 0.5*pbe, lyp", "GGA"),
        "omega": lambda mf: mf.set(xc="hse06", omega=0.3),
    }
    for name, change in changes.items():
        plain, mine = (change(field(basis="sto-3g", fit=True, tight=True)) for _ in range(2))
        for mf in (plain, mine):
            silence(mf)
        plain.kernel()
        accelerate(mine).kernel()
        assert mine.helmol_cycles.used, name
        same(mine, plain, density=3e-6)


def test_log_callback_checkpoint_and_count(tmp_path):
    mf = accelerate(field(fit=True))
    seen, mf.chkfile, mf.verbose, mf.stdout = [], str(tmp_path / "scf.chk"), 4, io.StringIO()
    mf.callback = lambda variables: seen.append(
        {k: variables[k] for k in ("cycle", "scf_conv", "e_tot", "norm_gorb")} | {"dm": variables["dm"]}
    )
    mf.kernel()
    info = mf.helmol_cycles
    assert len(seen) == info.coarse_cycles + info.fine_evaluations
    assert [step["cycle"] for step in seen[-2:]] == [mf.cycles - 1, mf.cycles - 1]
    assert [step["scf_conv"] for step in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1]["e_tot"] == mf.e_tot
    assert seen[-1]["norm_gorb"] == info.gradient
    np.testing.assert_allclose(seen[-1]["dm"], mf.make_rdm1(), atol=1e-12)
    output = mf.stdout.getvalue()
    assert output.count("coarse cycle=") == info.coarse_cycles
    assert output.count("own grid:") == info.fine_evaluations
    assert output.count("converged SCF energy") == 1

    mol, found = chkfile.load_scf(mf.chkfile)
    assert mol.natm == 3
    assert found["e_tot"] == mf.e_tot
    np.testing.assert_array_equal(found["mo_coeff"], mf.mo_coeff)
    again = field(fit=True)
    again.kernel(again.from_chk(mf.chkfile))
    assert again.cycles <= 2
    mf.kernel(dump_chk=False)


def test_scanner_reset_and_a_given_density():
    plain, mine = field(fit=True).as_scanner(), accelerate(field(fit=True)).as_scanner()
    moved = WATER.replace("0.8", "0.85")
    for geometry in (WATER, moved, WATER):
        assert mine(geometry) == pytest.approx(plain(geometry), abs=1e-8)
        assert mine.helmol_cycles.used
    scan = accelerate(field(fit=True)).nuc_grad_method().as_scanner()
    wanted = field(fit=True).nuc_grad_method().as_scanner()
    for geometry in (WATER, moved):
        (energy, slope), (plain_energy, plain_slope) = scan(geometry), wanted(geometry)
        assert energy == pytest.approx(plain_energy, abs=1e-8)
        np.testing.assert_allclose(slope, plain_slope, atol=2e-5)
    mf = accelerate(field(fit=True))
    energy = mf.kernel()
    first = mf.helmol_cycles
    assert mf.kernel() == pytest.approx(energy, abs=1e-9)
    assert mf.helmol_cycles.coarse_cycles < first.coarse_cycles
    mf.reset(gto.M(atom=HYDROXYL.replace("O", "F"), basis="6-31g", verbose=0))
    mf.mo_coeff = None
    other = field(HYDROXYL.replace("O", "F"), fit=True)
    assert mf.kernel() == pytest.approx(other.kernel(), abs=1e-8)


def test_copies_pickles_and_undoing():
    mf = accelerate(field(fit=True))
    energy = mf.kernel()
    for other in (mf.copy(), copy.deepcopy(mf), pickle.loads(pickle.dumps(mf))):
        other.mo_coeff = None
        assert other.kernel() == pytest.approx(energy, abs=1e-9)
        assert other.helmol_cycles.used
    plain = mf.undo_accelerate()
    assert type(plain) is type(field(fit=True))
    assert not hasattr(plain, "helmol_cycles")
    second = mf.newton()
    silence(second)
    assert second.kernel() == pytest.approx(energy, abs=1e-8)
    fitted = accelerate(field()).density_fit()
    silence(fitted)
    assert fitted.kernel() == pytest.approx(energy, abs=1e-8)
    assert fitted.helmol_cycles.used
    assert accelerate(mf) is mf
    assert type(mf).__mro__.count(type(mf).__mro__[1]) == 1


def smeared():
    mf = field(fit=True).smearing(sigma=0.005, method="fermi")
    silence(mf)
    return mf


def second_order():
    mf = field(fit=True).newton()
    silence(mf)
    return mf


def of_class(kind, atoms=WATER):
    mf = kind(gto.M(atom=atoms, basis="sto-3g", verbose=0, spin=None))
    silence(mf)
    return mf


def on_a_coarse_grid(mf):
    mf.grids.level = 0
    return mf


PLAIN = {
    "a second-order solver": second_order,
    "occupations are smeared": smeared,
    "no functional on a grid": lambda: of_class(scf.RHF),
    "ROKS is not supported": lambda: of_class(dft.ROKS, HYDROXYL),
    "test of its own": lambda: field().set(check_convergence=lambda v: v["norm_gorb"] < 1e-4),
    "an object or a file of its own": lambda: field().set(diis=scf.diis.CDIIS()),
    "its own get_occ": lambda: scf.addons.mom_occ(field(), np.eye(13), np.array([1.0] * 5 + [0] * 8) * 2),
    "small_rho_cutoff": lambda: field().set(small_rho_cutoff=1e-7),
    "times as large as the coarse one": lambda: field().set(
        grids=dft.gen_grid.Grids(field().mol).set(level=0)
    ),
}


@pytest.mark.parametrize("reason", PLAIN)
def test_what_cannot_be_cheap_is_pyscfs_own_and_says_so(reason, caplog):
    plain, mine = PLAIN[reason](), accelerate(PLAIN[reason]())
    with caplog.at_level(logging.WARNING):
        assert mine.kernel() == plain.kernel()
    assert not mine.helmol_cycles.used
    assert reason in mine.helmol_cycles.reason
    assert mine.cycles == plain.cycles
    assert not caplog.text


def test_settings_of_diis_are_respected():
    for settings in ({"level_shift": 0.2}, {"damp": 0.3}, {"diis_space": 4}, {"DIIS": scf.diis.ADIIS}):
        plain, mine = (field(fit=True).set(conv_tol=1e-7, **settings) for _ in range(2))
        plain.kernel()
        accelerate(mine).kernel()
        same(mine, plain, energy=2e-7, density=1e-3)


def test_too_few_cycles_end_as_pyscfs_do(caplog):
    plain, mine = field(fit=True).set(max_cycle=3), accelerate(field(fit=True)).set(max_cycle=3)
    assert mine.kernel() == pytest.approx(plain.kernel(), abs=1e-11)
    assert not mine.converged
    assert "did not converge" in mine.helmol_cycles.reason
    assert "PySCF's own cycles go on" in caplog.text


def test_a_correction_that_is_wrong_is_noticed(monkeypatch, caplog):
    plain = field(fit=True)
    plain.kernel()
    correct = two_grids.Corrected.correct

    def wrong(self, density, exact, mine):
        correct(self, density, exact, mine)
        self._helmol_change = 0.9 * self._helmol_change

    for fault in (wrong, lambda *_: None):
        monkeypatch.setattr(two_grids.Corrected, "correct", fault)
        mine = accelerate(field(fit=True))
        mine.kernel()
        assert not mine.helmol_cycles.used
        assert "does not get better" in mine.helmol_cycles.reason
        same(mine, plain, density=3e-5)
    assert caplog.text.count("PySCF's own cycles go on") == 2


def test_a_breakdown_of_the_coarse_cycles_is_noticed(monkeypatch):
    plain = field(fit=True)
    plain.kernel()

    def broken(*_, **__):
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr(two_grids.RememberingDiis, "update", broken)
    mine = accelerate(field(fit=True))
    assert mine.kernel() == pytest.approx(plain.e_tot, abs=1e-11)
    assert "broke down: singular" in mine.helmol_cycles.reason


def test_what_is_no_scf_of_a_molecule_is_refused():
    with pytest.raises(InputError, match="cannot accelerate a Mole"):
        accelerate(gto.M(atom="He", verbose=0))
