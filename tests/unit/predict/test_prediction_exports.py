"""Predictions as cube, Molden and checkpoint files say what PySCF says of the same density."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ase.io.cube
import numpy as np
import pytest
from pyscf import dft as pyscf_dft
from pyscf import lib
from pyscf.tools import cubegen

from helmol import dft
from helmol.basis import BasisSet
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.predict import Prediction, make_prediction
from helmol.predict.exports import cube_names
from helmol.predict.pictures import plot_states
from helmol.pyscf import write_chkfile, write_cube, write_molden
from helmol.system import Molecule

LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp")
WATER = Molecule.from_angstrom([8, 1, 1], [[0.1, 0.2, -0.3], [0.8, 0.5, 0.1], [-0.6, 0.7, 0.3]])
HYDROXYL = Molecule.from_angstrom([8, 1], [[0, 0.1, 0], [0.2, 0, 0.97]], spin=1)
HYDROGEN_IODIDE = Molecule.from_angstrom([53, 1], [[0, 0, 0], [0, 0.1, 1.6]])
NEON = Molecule.from_angstrom([10], [[1, 2, 3]])


def predicted(molecule: Molecule) -> Prediction:
    mole = dft.build_mole(molecule, LEVEL)
    return make_prediction(
        dft.reference_fock(mole, LEVEL, "minao-lite"), molecule, overlap=dft.overlap(mole),
        basis=BasisSet.from_mole(mole, "def2-svp"),
        level=dft.level_of_theory(LEVEL, method="uks" if molecule.spin else "rks"), id="m",
    )  # fmt: skip


@pytest.fixture(
    scope="module", params=[WATER, HYDROXYL, HYDROGEN_IODIDE], ids=["water", "hydroxyl", "iodide"]
)
def prediction(request: pytest.FixtureRequest) -> Prediction:
    return predicted(request.param)


def read_cube(path: Path) -> tuple[np.ndarray, str]:
    """Return the values in a cube file, as ASE reads it, and its first line."""
    values, _ = ase.io.cube.read_cube_data(str(path))
    return values, path.read_text().splitlines()[0]


def steps(path: Path) -> np.ndarray:
    """Return the distances of neighbouring points along the axes, bohr."""
    lines = path.read_text().splitlines()[3:6]
    return np.array([float(line.split()[k + 1]) for k, line in enumerate(lines)])


def test_cubes_hold_what_pyscf_says_of_the_density(prediction: Prediction, tmp_path: Path) -> None:
    mole, total = prediction.mole, prediction.density
    total = total.sum(axis=0) if total.ndim == 3 else total
    for name in ("density", "esp"):
        write_cube(prediction, tmp_path / f"{name}.cube", name, spacing=0.6)
    density, title = read_cube(tmp_path / "density.cube")
    assert title == "m: electron density, 1/bohr^3"
    shape = dict(zip(("nx", "ny", "nz"), density.shape, strict=True))
    wanted = cubegen.density(mole, str(tmp_path / "other"), total, **shape)
    assert density == pytest.approx(wanted, rel=1e-5, abs=1e-10)  # six digits in the file
    wanted = cubegen.mep(mole, str(tmp_path / "other"), total, **shape)
    potential, title = read_cube(tmp_path / "esp.cube")
    assert potential == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    assert "Eh/e" in title
    # Far out it is the monopole: the core electrons of iodine do not count.
    assert np.abs(potential[0, 0, 0]) < 0.1
    assert steps(tmp_path / "esp.cube").max() * lib.param.BOHR <= 0.6 + 1e-6


def test_cubes_of_orbitals(prediction: Prediction, tmp_path: Path) -> None:
    mole, unrestricted = prediction.mole, prediction.density.ndim == 3
    for name in cube_names(["homo", "lumo+1", "1"], unrestricted=unrestricted):
        write_cube(prediction, tmp_path / "o.cube", name, spacing=0.6)
        values, title = read_cube(tmp_path / "o.cube")
        assert title.startswith(f"m: {name}, ")
        spin = 1 if name.endswith("beta") else 0
        occupied = int((np.atleast_2d(prediction.mo_occ)[spin] > 0).sum())
        place = {"h": occupied - 1, "l": occupied + 1, "m": 0}[name[0]]
        shape = dict(zip(("nx", "ny", "nz"), values.shape, strict=True))
        coefficients = prediction.mo_coeff[spin] if unrestricted else prediction.mo_coeff
        wanted = cubegen.orbital(mole, str(tmp_path / "other"), coefficients[:, place], **shape)
        assert values == pytest.approx(wanted, rel=1e-5, abs=1e-8)
        energy = np.atleast_2d(prediction.mo_energy)[spin, place]
        assert f"{energy:.6f} Eh" in title


def test_the_spin_density_holds_the_unpaired_electrons(tmp_path: Path) -> None:
    write_cube(predicted(HYDROXYL), tmp_path / "spin.cube", "spin", spacing=0.2)
    values, _ = read_cube(tmp_path / "spin.cube")
    assert values.sum() * np.prod(steps(tmp_path / "spin.cube")) == pytest.approx(1, abs=0.03)


def test_no_point_of_a_potential_is_on_a_nucleus(tmp_path: Path) -> None:
    write_cube(predicted(NEON), tmp_path / "esp.cube", "esp", spacing=0.4)
    values, _ = read_cube(tmp_path / "esp.cube")
    assert np.isfinite(values).all()
    write_cube(predicted(NEON), tmp_path / "other.cube", "density", spacing=0.4)
    assert read_cube(tmp_path / "other.cube")[0].shape == values.shape


def test_names_of_cubes() -> None:
    assert cube_names(["homo", "17", "ESP", "homo"], unrestricted=False) == ["homo", "mo17", "esp"]
    names = ["homo-1-alpha", "homo-1-beta", "lumo-beta", "spin"]
    assert cube_names(["homo-1", "lumo-beta", "spin"], unrestricted=True) == names
    for wrong in ("homo+1", "lumo-1", "mo", "0", "mo+3", "density-alpha", "elf", "", "homo-alpha-beta"):
        with pytest.raises(InputError, match="cannot make a cube"):
            cube_names([wrong], unrestricted=True)
    with pytest.raises(InputError, match="no spin density"):
        cube_names(["spin"], unrestricted=False)
    with pytest.raises(InputError, match="have no spin"):
        cube_names(["homo-alpha"], unrestricted=False)


def test_what_cannot_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    water, radical = predicted(WATER), predicted(HYDROXYL)
    for one, name, said in (
        (water, "homo-5", r"no orbital 'homo-5': 5 of its 24 are occupied"),
        (water, "mo25", "no orbital 'mo25'"),
        (radical, "homo", "two orbitals are called 'homo': name one of homo-alpha, homo-beta"),
    ):
        with pytest.raises(InputError, match=said):
            write_cube(one, tmp_path / "x.cube", name)
    with pytest.raises(InputError, match="distance above 0"):
        write_cube(water, tmp_path / "x.cube", "homo", spacing=0.0)
    assert not list(tmp_path.iterdir())


ALONE = """
import sys
import numpy as np
from pyscf import dft, gto, scf
xyz, chk, out, spin = sys.argv[1:]
mol = gto.M(atom=xyz, basis="def2-svp", ecp="def2-svp", spin=int(spin), verbose=0)
mf = (dft.UKS if mol.spin else dft.RKS)(mol, xc="pbe")
mf.chkfile, mf.init_guess = chk, "chkfile"
found = scf.chkfile.load_scf(chk)[1]
np.savez(out, start=mf.get_init_guess(mol, mf.init_guess), chk=mf.from_chk(), **found)
assert not [name for name in sys.modules if name.startswith("helmol")]
"""


def test_pyscf_alone_starts_from_the_predicted_density(prediction: Prediction, tmp_path: Path) -> None:
    write_chkfile(prediction, tmp_path / "m.chk")
    molecule = prediction.molecule
    xyz = "; ".join(
        f"{SYMBOLS[z]} {x:.12f} {y:.12f} {w:.12f}"
        for z, (x, y, w) in zip(molecule.numbers, molecule.positions_ang, strict=True)
    )
    script = [
        sys.executable,
        "-c",
        ALONE,
        xyz,
        tmp_path / "m.chk",
        tmp_path / "found.npz",
        f"{molecule.spin}",
    ]
    subprocess.run([str(word) for word in script], check=True)
    with np.load(tmp_path / "found.npz") as found:
        for name in ("start", "chk"):
            assert found[name] == pytest.approx(prediction.density, abs=1e-10)
        for name in ("mo_energy", "mo_coeff", "mo_occ"):
            assert np.array_equal(found[name], getattr(prediction, name))
        assert np.isnan(found["e_tot"])


def test_an_scf_of_pyscf_converges_from_the_file(tmp_path: Path) -> None:
    water = predicted(WATER)
    write_chkfile(water, tmp_path / "m.chk")
    mf = pyscf_dft.RKS(water.mole, xc="pbe")
    mf._chkfile.close()
    mf.chkfile, mf.init_guess, mf.verbose, mf.grids.level = str(tmp_path / "m.chk"), "chkfile", 0, 0
    mf.kernel()
    assert mf.converged


def test_molden_needs_no_level_but_that_of_the_prediction(prediction: Prediction, tmp_path: Path) -> None:
    write_molden(prediction, tmp_path / "a.molden")
    write_molden(prediction, tmp_path / "b.molden", level=prediction.level)
    assert (tmp_path / "a.molden").read_bytes() == (tmp_path / "b.molden").read_bytes()


def test_a_picture_of_the_states(prediction: Prediction, tmp_path: Path) -> None:
    plot_states(prediction, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1
