"""The SCFs of the study of harm: molecules, changes of their geometry, levels of theory, spoilt models."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import yaml

from helmol import properties, structures
from helmol.predict import Prediction, TrainedModel
from helmol.system import Molecule

# isort: split
from pyscf import dft as pyscf_dft
from pyscf import gto, lib, scf

HERE = Path(__file__).parent
SHAKEN = 0.05
"""Standard deviation of each coordinate of a shaken molecule, Å."""


@dataclass(frozen=True)
class Case:
    """Hold one SCF and the model that it is started from."""

    group: str
    name: str
    molecule: Molecule
    method: str = "rks"
    xc: str = "pbe"
    basis: str = "def2-svp"
    density_fit: bool = True
    grid_level: int = 0
    model: str = "organic"

    @property
    def scf(self) -> tuple[object, ...]:
        """What decides the SCF, but for its start."""
        molecule = self.molecule
        geometry = molecule.numbers.tobytes(), molecule.positions.tobytes(), molecule.charge, molecule.spin
        return *geometry, self.method, self.xc, self.basis, self.density_fit, self.grid_level

    def mean_field(self, mixin: type) -> Any:
        """Return PySCF's object with PySCF's own settings but for the grid, of a class with a mix-in."""
        molecule = self.molecule
        mole = gto.M(
            atom=[(int(z), xyz) for z, xyz in zip(molecule.numbers, molecule.positions, strict=True)],
            unit="Bohr", basis=self.basis, charge=molecule.charge, spin=molecule.spin, verbose=0,
        )  # fmt: skip
        if self.xc == "hf":
            mf = {"rks": scf.RHF, "uks": scf.UHF, "roks": scf.ROHF}[self.method](mole)
        else:
            kind = {"rks": pyscf_dft.RKS, "uks": pyscf_dft.UKS, "roks": pyscf_dft.ROKS}[self.method]
            mf = kind(mole, xc=self.xc)
            mf.grids.level = self.grid_level
        if self.density_fit:
            mf = mf.density_fit()
        mf._chkfile.close()
        mf.chkfile = None
        return lib.set_class(mf, (mixin, mf.__class__), mf.__class__.__name__)


def cases() -> Iterator[Case]:
    """Yield all SCFs of ``harm.yaml``, of each group in turn: a study that is stopped has some of all."""
    plan = yaml.safe_load((HERE / "harm.yaml").read_text(encoding="utf-8"))
    groups = [_group(name, settings, plan["grid_level"]) for name, settings in plan["groups"].items()]
    yield from (case for turn in itertools.zip_longest(*groups) for case in turn if case is not None)


def _group(group: str, settings: dict[str, Any], grid_level: int) -> Iterator[Case]:
    rest = {k: v for k, v in settings.items() if k in ("method", "xc", "basis", "density_fit", "model")}
    for name, molecule in _molecules(settings):
        changed = change(molecule, settings.get("change", ""), name)
        yield Case(group, name, changed, grid_level=grid_level, **rest)


def _molecules(settings: dict[str, Any]) -> Iterator[tuple[str, Molecule]]:
    if "file" in settings:
        found = [f for f in structures.each(HERE / settings["file"]) if not f.molecule.spin]
        yield from ((frame.id, frame.molecule) for frame in found[: settings["molecules"]])
        return
    for name in settings["molecules"]:
        atoms = ase.build.molecule(name)
        yield name, Molecule.from_angstrom(atoms.numbers, atoms.positions, spin=settings.get("spin", 0))


def change(molecule: Molecule, how: str, name: str) -> Molecule:
    """Return a molecule with another geometry.

    ``shaken``: all atoms moved at random. ``stretched F``: the last atom at F times its distance from the
    nearest one. ``deprotonated``: without its last hydrogen, an anion. ``bridged``: the last hydrogen above
    the middle between its own atom and the nearest other one that is none, as in a 1,2-shift.
    """
    kind, _, size = how.partition(" ")
    numbers, xyz = np.array(molecule.numbers), np.array(molecule.positions_ang)
    distances = np.linalg.norm(xyz[:, None] - xyz[None], axis=-1) + 1e9 * np.eye(len(xyz))
    charge = molecule.charge
    if kind == "shaken":
        xyz = xyz + SHAKEN * _random(name).normal(size=xyz.shape)
    elif kind == "stretched":
        last, near = len(xyz) - 1, int(distances[-1].argmin())
        xyz[last] = xyz[near] + float(size) * (xyz[last] - xyz[near])
    elif kind == "deprotonated":
        keep = np.arange(len(xyz)) != np.flatnonzero(numbers == 1)[-1]
        numbers, xyz, charge = numbers[keep], xyz[keep], charge - 1
    elif kind == "bridged":
        hydrogen = int(np.flatnonzero(numbers == 1)[-1])
        own = int(distances[hydrogen].argmin())
        heavy = np.where((numbers > 1) & (np.arange(len(xyz)) != own), distances[own], np.inf)
        next_one = int(heavy.argmin()) if np.isfinite(heavy).any() else own
        middle, axis = (xyz[own] + xyz[next_one]) / 2, xyz[next_one] - xyz[own]
        away = xyz[hydrogen] - middle
        if axis.any():
            away = away - (away @ axis) / (axis @ axis) * axis
        if np.linalg.norm(away) < 0.1:
            away = np.cross(axis, [1.0, 0.3, 0.2])
        xyz[hydrogen] = middle + 1.1 * away / np.linalg.norm(away)
    elif kind:
        raise ValueError(f"unknown change {how!r}")
    return Molecule.from_angstrom(numbers, xyz, charge=charge, spin=molecule.spin)


class Spoilt(TrainedModel):
    """A trained model whose Fock matrices something has happened to."""

    def __init__(self, model: TrainedModel, how: str) -> None:
        super().__init__(model.model)
        self._how = how

    def predict(self, what: Any, **_: Any) -> Prediction:
        """Predict one molecule and spoil the matrix."""
        kind, _, size = self._how.rpartition(" ") if self._how[-1].isdigit() else (self._how, "", "0")
        source = what
        if kind == "another geometry":
            shift = float(size) * _random(self._how).normal(size=(what.natm, 3)) / lib.param.BOHR
            source = what.set_geom_(what.atom_coords() + shift, unit="Bohr", inplace=False)
        found = super().predict(source)
        overlap, fock = what.intor_symmetric("int1e_ovlp"), found.fock
        root = np.linalg.cholesky(overlap)
        if kind == "noise":
            noise = _random(self._how).normal(size=fock.shape) * float(size)
            fock = fock + root @ (noise + noise.T) @ root.T / 2
        elif kind == "mixed frontier":
            n, c = int(what.nelectron) // 2, found.mo_coeff
            cos, sin = np.cos(float(size)), np.sin(float(size))
            mixed = c.copy()
            home, other = c[:, n - 1], c[:, n]
            mixed[:, n - 1], mixed[:, n] = cos * home + sin * other, cos * other - sin * home
            left = overlap @ mixed
            fock = (left * found.mo_energy) @ left.T
        elif kind == "permuted functions":
            order = _random(self._how).permutation(len(fock))
            fock = fock[np.ix_(order, order)]
        elif kind == "minao's own":
            mf = pyscf_dft.RKS(what, xc="pbe").density_fit()
            mf.chkfile = None
            fock = mf.get_fock(dm=mf.get_init_guess(key="minao"))
        mo_energy, mo_coeff = properties.orbitals(fock, overlap)
        density = properties.density(mo_coeff, found.mo_occ)
        return replace(
            found, fock=fock, overlap=overlap, mo_energy=mo_energy, mo_coeff=mo_coeff, density=density
        )


def model_of(case: Case, organic: TrainedModel) -> TrainedModel:
    """Return the model that a case is started from."""
    return organic if case.model == "organic" else Spoilt(organic, case.model)


def _random(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))
