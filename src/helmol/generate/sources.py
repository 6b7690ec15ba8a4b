"""Where the structures of a data set come from, and in which order they are labelled."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from helmol import structures
from helmol.config import Config
from helmol.errors import InputError
from helmol.generate.plans import Work, complex_plans, conformer_plans, n_atoms, random_plans
from helmol.structures import (
    ComplexesConfig,
    ConformersConfig,
    DimersConfig,
    DynamicsConfig,
    ModesConfig,
    RandomConfig,
    Structure,
)


class SmilesSource(ConformersConfig):
    """Make conformers of molecules given as SMILES."""

    file: str | None = None
    """File of lines ``SMILES [name]``."""

    list: tuple[str, ...] = ()
    """SMILES in the spec itself."""


class MdSource(DynamicsConfig):
    """Sample conformations of the molecules of a structure file by molecular dynamics."""

    start: str
    """Structure file; one trajectory starts from each of its frames."""


class ModesSource(ModesConfig):
    """Displace molecules along their normal modes with GFN2-xTB."""

    start: str
    """Structure file; each of its frames is relaxed first."""


class DimersSource(DimersConfig):
    """Place the molecules of two files beside each other, each of the first with each of the second."""

    first: str
    """Structure file."""

    second: str
    """Structure file."""


class ComplexesSource(ComplexesConfig):
    """Pack molecules of structure files into relaxed complexes."""

    fragments: tuple[str, ...] = Field(min_length=1)
    """Structure files of closed-shell molecules and ions."""


class StructuresConfig(Config):
    """Say where the structures come from; several sources are taken one after another.

    Paths start at the folder of the spec or, where no such file is there, at the present one.
    """

    files: tuple[str, ...] = ()
    """Structure files (xyz, extxyz, ASE databases, whatever ASE reads)."""

    smiles: SmilesSource | None = None
    """Conformers of SMILES (needs RDKit)."""

    md: MdSource | None = None
    """Molecular dynamics."""

    modes: ModesSource | None = None
    """Displacements along normal modes."""

    dimers: DimersSource | None = None
    """Pairs of molecules at given distances."""

    random: RandomConfig | None = None
    """Random molecules over most of the periodic table."""

    complexes: ComplexesSource | None = None
    """Relaxed complexes of fragments."""

    max_atoms: int | None = Field(default=None, ge=1, le=100_000)
    """Leave larger molecules out."""

    order: Literal["given", "smallest"] = "given"
    """Label in the order of the sources, or the smallest molecules first."""

    limit: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Stop after so many structures, counted in that order; may be raised later."""

    @property
    def empty(self) -> bool:
        """Whether no source is named."""
        sources = (self.smiles, self.md, self.modes, self.dimers, self.random, self.complexes)
        return not self.files and not any(sources)


PATHS = {
    "files": None, "smiles": "file", "md": "start", "modes": "start", "dimers": "first second",
    "complexes": "fragments",
}  # fmt: skip
"""Sources that name files, and the keys that do."""


def with_paths(config: StructuresConfig, change: Callable[[str], str]) -> StructuresConfig:
    """Return the configuration with every path changed."""

    def changed(value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if value is None:
            return None
        return change(value) if isinstance(value, str) else tuple(change(path) for path in value)

    update: dict[str, object] = {}
    for source, keys in PATHS.items():
        value = getattr(config, source)
        if keys is None:
            update[source] = changed(value)
        elif value is not None:
            new = {key: changed(getattr(value, key)) for key in keys.split()}
            update[source] = value.model_copy(update=new)
    return config.model_copy(update=update)


class Sources:
    """Hold the files of a spec, read once, and what follows from them.

    Attributes:
        fixed: structures of files, dimers, and plans; what needs no sampling.
        starts: start geometries of dynamics and normal modes.
        n_structures: how many structures there will be at most.
    """

    def __init__(self, config: StructuresConfig, *, seed: int) -> None:
        """Read the files.

        Raises:
            InputError: unreadable files, no structures, or two of the same id.
        """
        self.config, self.seed = config, seed
        files = [structure for file in config.files for structure in structures.read(file)]
        self.fixed: tuple[Work, ...] = (*files, *_dimers(config, seed), *_plans(config, seed))
        self._md = [(start, config.md) for start in structures.read(config.md.start)] if config.md else []
        modes = config.modes
        self._modes = [(start, modes) for start in structures.read(modes.start)] if modes else []
        self.starts = tuple(start for start, _ in (*self._md, *self._modes))
        if not self.fixed and not self.starts:
            raise InputError(
                "the spec names no structures: give structures.files or another source, such as structures.md"
            )
        for works in (self.fixed, [start for start, _ in self._md], [start for start, _ in self._modes]):
            refuse_equal_ids(works)
        count = len(self.chosen(self.fixed))
        count += sum(md.n_frames for _, md in self._md) + sum(m.n_samples for _, m in self._modes)
        self.n_structures = count if config.limit is None else min(count, config.limit)

    def sampled(self, *, progress: bool) -> list[Structure]:
        """Run dynamics and draw displacements."""
        found: list[Structure] = []
        for k, (start, md) in enumerate(self._md):
            seed = self.seed + k
            found += structures.md(start.molecule, md, seed=seed, name=start.id, progress=progress)
        for k, (start, modes) in enumerate(self._modes):
            found += _displaced(start, modes, seed=self.seed + k)
        return found

    def chosen(self, works: Sequence[Work]) -> list[Work]:
        """Return what is to be labelled, in its order."""
        config = self.config
        kept = [work for work in works if config.max_atoms is None or n_atoms(work) <= config.max_atoms]
        if config.order == "smallest":
            kept.sort(key=n_atoms)
        return kept[: config.limit]


def _plans(config: StructuresConfig, seed: int) -> list[Work]:
    """Return the plans of all sources that are made by workers."""
    plans: list[Work] = []
    if (smiles := config.smiles) is not None:
        named = structures.read_smiles(Path(smiles.file)) if smiles.file else []
        named += [(f"smiles-{k:05d}", text) for k, text in enumerate(smiles.list)]
        plans += conformer_plans(named, smiles, seed=seed)
    if config.random is not None:
        plans += random_plans(config.random, seed=seed)
    if config.complexes is not None:
        fragments = [s for file in config.complexes.fragments for s in structures.read(file)]
        plans += complex_plans(fragments, config.complexes, seed=seed)
    return plans


def _dimers(config: StructuresConfig, seed: int) -> list[Structure]:
    """Return each molecule of the first file beside each of the second."""
    if config.dimers is None:
        return []
    pairs = itertools.product(structures.read(config.dimers.first), structures.read(config.dimers.second))
    return [
        dimer
        for k, (a, b) in enumerate(pairs)
        for dimer in structures.dimers(a, b, config.dimers, seed=seed + k)
    ]


def _displaced(start: Structure, config: ModesSource, *, seed: int) -> list[Structure]:
    """Relax a molecule and displace it along its normal modes."""
    molecule, _ = structures.relax(start.molecule, force_ev_ang=1e-3, max_steps=1000)
    return structures.displaced(molecule, structures.hessian(molecule), config, seed=seed, name=start.id)


def refuse_equal_ids(works: Sequence[Work]) -> None:
    """Raise if two structures have the same id.

    Raises:
        InputError: names the id.
    """
    twice = sorted(id for id, count in Counter(work.id for work in works).items() if count > 1)
    if twice:
        raise InputError(f"two structures are called {twice[0]!r}: give the files different names")
