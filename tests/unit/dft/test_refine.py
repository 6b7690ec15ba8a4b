"""Newton steps from a guessed Fock matrix lead to the SCF, energy and forces, for every kind of it."""

from __future__ import annotations

import numpy as np
import pytest

from helmol import dft
from helmol.basis import to_house
from helmol.dft import refinement as room
from helmol.dft.refinement import forces_of, refine
from helmol.errors import InputError
from helmol.system import Molecule

WATER = Molecule.from_angstrom([8, 1, 1], [[0.1, 0.2, -0.3], [0.8, 0.5, 0.1], [-0.6, 0.7, 0.3]])
METHYL = Molecule.from_angstrom(
    [6, 1, 1, 1], [[0, 0, 0.1], [1.08, 0, 0], [-0.54, 0.93, 0.05], [-0.54, -0.95, 0]], spin=1
)
KINDS = {
    "PBE, fitted": (WATER, {"xc": "pbe", "density_fit": True}),
    "PBE0": (WATER, {"xc": "pbe0"}),
    "HF": (WATER, {"xc": "hf"}),
    "radical, B3LYP": (METHYL, {"xc": "b3lyp"}),
}


class Known:
    """A converged SCF, and its Fock matrix with noise."""

    def __init__(self, molecule: Molecule, **settings: object) -> None:
        common = {"basis": "6-31g", "grid_level": 1, "conv_tol": 1e-12, "conv_tol_grad": 1e-7}
        fields = {name: value for name, value in {**common, **settings}.items()}
        fields = {name: value for name, value in fields.items() if name in dft.LevelConfig.model_fields}
        self.level = dft.LevelConfig(**fields)
        self.mole = dft.build_mole(molecule, self.level)
        self.mf = dft.mean_field(self.mole, self.level)
        self.energy = self.mf.kernel()
        self.fock = np.asarray(self.mf.get_fock())
        noise = np.random.default_rng(3).normal(size=self.fock.shape)
        root = np.linalg.cholesky(self.mf.get_ovlp())
        self.noise = root @ (noise + noise.swapaxes(-1, -2)) @ root.T / 2

    def refined(self, size: float, **settings: int) -> room.Refined:
        return refine(self.mole, self.level, self.fock + size * self.noise, **settings)


@pytest.fixture(scope="module", params=KINDS)
def known(request: pytest.FixtureRequest) -> Known:
    molecule, settings = KINDS[request.param]
    return Known(molecule, **settings)


def test_every_step_comes_nearer(known: Known) -> None:
    errors = [abs(known.refined(0.02, steps=k).energy - known.energy) for k in range(5)]
    assert errors[0] > 1e-4
    assert errors[2] < errors[0] / 10
    assert errors[4] < errors[0] / 100
    twice = known.refined(0.02, steps=4, rounds=2)
    assert abs(twice.energy - known.energy) < 1e-7
    assert (twice.builds, twice.responses) == (2, 10)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_rounds_end_where_the_energy_is_as_good_as_wanted(known: Known, tolerance: float) -> None:
    fock = known.fock + 0.02 * known.noise
    found = refine(known.mole, known.level, fock, steps=3, rounds=8, tolerance=tolerance)
    assert found.error <= tolerance
    assert abs(found.energy - known.energy) < tolerance
    assert found.builds <= {1e-3: 2, 1e-5: 3, 1e-8: 4}[tolerance]


def test_at_the_end_nothing_is_left(known: Known) -> None:
    there = known.refined(0.0, steps=2)
    assert there.energy == pytest.approx(known.energy, abs=1e-9)
    assert 0 <= there.remaining < 1e-10
    assert abs(there.gained) < 1e-9
    overlap = known.mf.get_ovlp()
    density = np.asarray(known.mf.make_rdm1())
    assert np.abs(there.density - density).max() < 1e-5
    unit = there.mo_coeff.swapaxes(-1, -2) @ overlap @ there.mo_coeff
    assert np.abs(unit - np.eye(unit.shape[-1])).max() < 1e-9
    filled = np.sort(there.mo_energy[there.mo_occ > 0])
    assert filled == pytest.approx(np.sort(known.mf.mo_energy[known.mf.mo_occ > 0]), abs=1e-5)


def test_no_step_is_the_energy_of_the_guess(known: Known) -> None:
    fock = known.fock + 0.02 * known.noise
    house = to_house(fock, dft.house_shells(known.mole), "pyscf")
    plain, none = dft.energy_of_fock(known.mole, known.level, house), known.refined(0.02, steps=0)
    assert none.energy == pytest.approx(plain.energy, abs=1e-9)
    # There the orbitals are not made canonical.
    assert none.remaining == pytest.approx(-plain.correction, rel=0.1)
    assert (none.builds, none.responses, none.gained) == (1, 0, 0.0)


def test_forces_come_nearer_and_a_shift_of_the_guess_is_nothing(known: Known) -> None:
    truth = -known.mf.nuc_grad_method().kernel()
    errors = []
    for steps in (0, 4):
        found = forces_of(known.mole, known.level, known.refined(0.02, steps=steps))
        errors.append(np.abs(found - truth).max())
    assert errors[1] < errors[0] / 10
    shifted = known.fock + 0.02 * known.noise + 0.3 * known.mf.get_ovlp()
    same = refine(known.mole, known.level, shifted, steps=1)
    assert same.energy == pytest.approx(known.refined(0.02, steps=1).energy, abs=1e-9)


@pytest.mark.parametrize("kind", ["PBE, fitted", "radical, B3LYP"])
def test_what_is_left_out_is_of_third_order(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    molecule, settings = KINDS[kind]
    known = Known(molecule, **settings)
    # With the response on the same grid and integrals nothing else is left out.
    monkeypatch.setattr(room, "on_coarse_grid", lambda mf, _: mf)

    def missing(size: float) -> float:
        found = known.refined(size, steps=1)
        exact = known.mf.energy_tot(found.density)
        return abs(found.energy - exact)

    # 8; 16 where the third order happens to vanish.
    assert 6.0 < missing(0.01) / missing(0.005) < 20.0


def test_a_planted_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    molecule, settings = KINDS["PBE, fitted"]
    known = Known(molecule, **settings)
    right = abs(known.refined(0.02, steps=4).energy - known.energy)
    true = type(known.mf).gen_response
    monkeypatch.setattr(
        type(known.mf), "gen_response", lambda *a, **k: lambda d: 0.5 * np.asarray(true(*a, **k)(d))
    )
    assert abs(known.refined(0.02, steps=4).energy - known.energy) > 10 * right


def test_wrong_input() -> None:
    known = Known(WATER, xc="hf", basis="sto-3g")
    with pytest.raises(InputError, match=r"of shape \(2, 7, 7\) where the level of theory has \(7, 7\)"):
        refine(known.mole, known.level, np.stack([known.fock] * 2))
    for wrong in ({"steps": -1}, {"rounds": 0}):
        with pytest.raises(InputError, match="expected 0 or more, and 1 or more"):
            known.refined(0.0, **wrong)
