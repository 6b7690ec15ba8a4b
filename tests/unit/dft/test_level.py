"""Level of theory: names are resolved, wrong ones refused, ECPs never forgotten."""

import numpy as np
import pytest
from pydantic import ValidationError
from pyscf import dft as pyscf_dft
from pyscf import gto

from helmol import dft
from helmol.basis import BasisSet
from helmol.dft import LevelConfig
from helmol.errors import InputError
from helmol.system import LevelOfTheory, Molecule

WB97X_D = "HYB_GGA_XC_WB97X_D"
WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0.1, -0.76, 0.59]])


@pytest.mark.parametrize(
    ("xc", "resolved"),
    [
        ("pbe", "1*101 + 1*130"),
        ("gga_x_pbe,gga_c_pbe", "1*101 + 1*130"),
        ("hf", "1*HF"),
        ("b3lyp5", "0.08*1 + 0.19*7 + 0.72*106 + 0.81*131 + 0.2*HF"),
        ("HYB_GGA_XC_WB97X_D", "1*471"),
    ],
)
def test_functional_is_what_libxc_sees(xc: str, resolved: str) -> None:
    assert dft.level_of_theory(LevelConfig(xc=xc), method="rks").xc_resolved == resolved


@pytest.mark.parametrize("xc", ["nosuch", "wb97x-d", "wb97x-d3", "0.5*"])
def test_unknown_functional_is_named(xc: str) -> None:
    with pytest.raises(InputError, match="unknown functional"):
        dft.mean_field(dft.build_mole(WATER, LevelConfig()), LevelConfig(xc=xc))


def test_level_there_and_back() -> None:
    config = LevelConfig(xc="b3lyp5", basis="def2-TZVPD", grid_level=4, density_fit=True, conv_tol=1e-9)
    level = dft.level_of_theory(config, method="uks")
    again = dft.level_from(level)
    assert dft.level_of_theory(again) == level
    assert dft.basis_set(again, [1, 83]).elements == dft.basis_set(config, [1, 83]).elements


def test_method_follows_the_spin() -> None:
    assert dft.method_for(LevelConfig(), 0) == "rks"
    assert dft.method_for(LevelConfig(), 1) == "uks"
    with pytest.raises(InputError, match="restricted"):
        dft.method_for(LevelConfig(method="rks"), 2)


def test_nonlocal_correlation_on_a_coarse_grid_and_fitted_without_differences() -> None:
    mf = dft.mean_field(dft.build_mole(WATER, LevelConfig()), LevelConfig(xc="wb97m-v", density_fit=True))
    assert mf.nlcgrids.level == 0
    assert mf.grids.level == 3
    assert mf.direct_scf is False


@pytest.mark.parametrize("basis", ["def2-svp", "def2-tzvpd"])
def test_heavy_elements_get_their_core_potential(basis: str) -> None:
    hydride = Molecule.from_angstrom([83, 1], [[0, 0, 0], [0, 0, 1.8]])
    mole = dft.build_mole(hydride, LevelConfig(basis=basis))
    assert mole.nelectron == 24
    assert dft.basis_set(LevelConfig(basis=basis), [83, 1]).elements[83].core_electrons == 60


@pytest.mark.parametrize(
    ("changes", "number", "message"),
    [
        ({"basis": "nosuch"}, 1, "unknown basis 'nosuch'"),
        ({"basis": "def2-svp"}, 64, "no functions for Gd"),
        ({"basis": "def2-tzvpd", "ecp": None}, 83, "valence electrons only"),
        ({"ecp": "nosuch"}, 53, "unknown effective core potential"),
    ],
)
def test_unusable_basis_is_refused_before_work(
    changes: dict[str, str | None], number: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=message):
        dft.basis_set(LevelConfig(**changes), [number])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("basis", "number"), [("sto-3g", 53), ("cc-pvtz", 35), ("6-31g**", 26), ("def2-svp", 86)]
)
def test_usable_basis_is_not_refused(basis: str, number: int) -> None:
    assert number in dft.basis_set(LevelConfig(basis=basis), [number]).elements


def test_basis_does_not_depend_on_the_molecule() -> None:
    mole = dft.build_mole(WATER, LevelConfig())
    assert BasisSet.from_mole(mole, "def2-svp").elements == dft.basis_set(LevelConfig(), [1, 8]).elements


def test_molecule_there_and_back() -> None:
    ion = Molecule.from_angstrom([53, 1], [[0, 0, 0], [0.1, 0.2, 1.6]], charge=1, spin=1)
    again = dft.molecule_from_mole(dft.build_mole(ion, LevelConfig()))
    assert np.array_equal(again.numbers, ion.numbers)
    assert np.array_equal(again.positions, ion.positions)
    assert (again.charge, again.spin) == (1, 1)


@pytest.mark.parametrize(("xc", "name"), [("pbe", "def2-universal-jfit"), ("b3lyp5", "def2-svp-jkfit")])
def test_the_auxiliary_basis_is_that_of_the_name_of_the_basis(xc: str, name: str) -> None:
    """Parsed functions carry no name: PySCF alone would take even-tempered Gaussians."""
    level = LevelConfig(xc=xc, density_fit=True)
    mf = dft.mean_field(dft.build_mole(WATER, level), level)
    assert mf.with_df.auxbasis == {"O": name, "H": name}
    atoms = list(zip(["O", "H", "H"], WATER.positions.tolist(), strict=True))
    plain = pyscf_dft.RKS(gto.M(atom=atoms, unit="Bohr", basis="def2-svp", verbose=0), xc=xc).density_fit()
    plain.conv_tol = 1e-10
    assert abs(plain.kernel() - mf.kernel()) < 1e-9


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"preset": "fast"}, "def2-universal-jfit"),
        ({"preset": "fast", "xc": "b3lyp5"}, "def2-svp-jkfit"),
        ({"preset": "fast", "basis": "sto-3g"}, "even-tempered"),
        ({"preset": "fast", "xc": "b3lyp5", "basis": "6-31g*"}, "H O: cc-pvdz-jkfit; K: even-tempered"),
        ({"preset": "fast", "auxbasis": "DEF2-Universal-JKfit"}, "def2-universal-jkfit"),
        ({"preset": "fast", "auxbasis": "even-tempered"}, "even-tempered"),
        ({}, None),
    ],
)
def test_the_auxiliary_basis_has_a_name_that_brings_it_back(
    changes: dict[str, str], name: str | None
) -> None:
    config = LevelConfig(**changes)
    assert dft.auxiliary_name(config, [1, 8, 19]) == name
    level = dft.level_of_theory(config, method="rks", auxbasis=name)
    assert LevelOfTheory.from_json(level.to_json()) == level
    again = dft.level_from(level)
    assert dft.auxiliary_name(again, [19, 8, 1]) == name
    if name is not None:
        bases = [dft.mean_field(dft.build_mole(WATER, c), c).with_df.auxbasis for c in (config, again)]
        assert {k: str(v).lower() for k, v in bases[0].items()} == {
            k: str(v).lower() for k, v in bases[1].items()
        }


def test_another_auxiliary_basis_is_another_energy_and_auto_is_the_named_one() -> None:
    energies = [
        dft.run(WATER, LevelConfig(preset="fast", grid_level=0, auxbasis=name), id="w")[0].energy
        for name in ("auto", "def2-universal-jfit", "even-tempered")
    ]
    assert energies[0] == energies[1]
    assert 1e-6 < abs(energies[2] - energies[0]) < 1e-3


def test_unusable_auxiliary_bases_are_refused() -> None:
    with pytest.raises(InputError, match="no auxiliary basis 'nosuch' for H, O"):
        dft.auxiliary_name(LevelConfig(preset="fast", auxbasis="nosuch"), [1, 8])
    level = LevelConfig(preset="fast", auxbasis="cc-pvdz-jkfit")
    with pytest.raises(InputError, match="no auxiliary basis 'cc-pvdz-jkfit' for I"):
        dft.auxiliary_name(level, [1, 53])
    with pytest.raises(ValidationError, match="of no use without density_fit"):
        LevelConfig(auxbasis="def2-universal-jfit")


def test_a_level_of_before_has_no_dispersion_and_an_unnamed_auxiliary_basis() -> None:
    now = dft.level_of_theory(LevelConfig(xc=WB97X_D, density_fit=True), method="rks", auxbasis="x")
    old = {k: v for k, v in now.to_json().items() if k not in ("auxbasis", "dispersion")}
    level = LevelOfTheory.from_json(old)
    assert level.to_json() == old
    config = dft.level_from(level)
    assert (config.auxbasis, config.dispersion) == ("auto", None)
    assert level.differences(now) == "auxbasis None, now x; dispersion None, now chai-head-gordon"
    assert "dispersion" in now.label
    assert "dispersion" not in level.label
