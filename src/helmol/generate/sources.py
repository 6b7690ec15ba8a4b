"""Where the structures of a data set come from, and in which order they are labelled."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from helmol import structures
from helmol.config import Config, Files, PathText
from helmol.errors import InputError
from helmol.generate.plans import Work, complex_plans, conformer_plans, n_atoms, random_plans
from helmol.letters import text_of
from helmol.places import files_at
from helmol.skipped import FAULTS, Skips
from helmol.structures import (
    ComplexesConfig,
    ConformersConfig,
    DimersConfig,
    DynamicsConfig,
    FrameError,
    ModesConfig,
    RandomConfig,
    Structure,
)


class SmilesSource(ConformersConfig):
    """Make conformers of molecules given as SMILES."""

    file: PathText | None = None
    """File of lines ``SMILES [name]``."""

    list: tuple[str, ...] = ()
    """SMILES in the spec itself."""


class MdSource(DynamicsConfig):
    """Sample conformations of the molecules of a structure file by molecular dynamics."""

    start: PathText
    """Structure file; one trajectory starts from each of its frames."""


class ModesSource(ModesConfig):
    """Displace molecules along their normal modes with GFN2-xTB."""

    start: PathText
    """Structure file; each of its frames is relaxed first."""


class DimersSource(DimersConfig):
    """Place the molecules of two files beside each other, each of the first with each of the second."""

    first: PathText
    """Structure file."""

    second: PathText
    """Structure file."""


class ComplexesSource(ComplexesConfig):
    """Pack molecules of structure files into relaxed complexes."""

    fragments: Files = Field(min_length=1)
    """Structure files of closed-shell molecules and ions, folders or patterns."""


class StructuresConfig(Config):
    """Say where the structures come from; several sources are taken one after another.

    Paths start at the folder of the spec or, where no such file is there, at the present one.
    """

    files: Files = ()
    """Structure files (xyz, extxyz, ASE databases, whatever ASE reads), folders of them, or patterns
    (``frames/*.xyz``)."""

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


def with_files(config: StructuresConfig) -> StructuresConfig:
    """Return the configuration with the files that folders and patterns stand for.

    Raises:
        InputError: a name that does not exist, or that stands for no file.
    """
    update: dict[str, object] = {}
    if config.files:
        update["files"] = _texts(files_at(config.files, suffixes=structures.SUFFIXES))
    if (complexes := config.complexes) is not None:
        files = _texts(files_at(complexes.fragments, suffixes=structures.SUFFIXES))
        update["complexes"] = complexes.model_copy(update={"fragments": files})
    return config.model_copy(update=update)


def _texts(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(path) for path in paths)


class Sources:
    """Hold the files of a spec, read once, and what follows from them.

    A frame that is no molecule, and a file that cannot be read, is left out.

    Attributes:
        fixed: structures of files, dimers, and plans; what needs no sampling.
    """

    def __init__(self, config: StructuresConfig, *, seed: int, skips: Skips | None = None) -> None:
        """Read the files.

        Args:
            config: names them.
            seed: of everything random.
            skips: takes what cannot be used; without it that is an error.

        Raises:
            InputError: not one readable structure, or two of the same id.
        """
        self.config, self.seed, self._skips = config, seed, skips or Skips(strict=True)
        self._place: dict[str, tuple[Path, int]] = {}
        self.fixed: tuple[Work, ...] = (*self._files(), *self._dimers(), *self._plans())
        md, modes = config.md, config.modes
        self._md = [(start, md) for start in self._read(md.start)] if md else []
        self._modes = [(start, modes) for start in self._read(modes.start)] if modes else []
        if not self.fixed and not self.starts:
            self._skips.refuse_nothing_left(0, what="structures")
            raise InputError(
                "the spec names no structures: give structures.files or another source, such as structures.md"
            )
        for works in (self.fixed, [start for start, _ in self._md], [start for start, _ in self._modes]):
            refuse_equal_ids(works)

    @property
    def starts(self) -> tuple[Structure, ...]:
        """Start geometries of dynamics and normal modes."""
        return tuple(start for start, _ in (*self._md, *self._modes))

    @property
    def n_structures(self) -> int:
        """How many structures there will be at most."""
        count = len(self.chosen(self.fixed))
        count += sum(md.n_frames for _, md in self._md) + sum(m.n_samples for _, m in self._modes)
        return count if self.config.limit is None else min(count, self.config.limit)

    def leave_out(self, reason: Callable[[Work], str | None]) -> None:
        """Leave out all for which there is a reason.

        Raises:
            InputError: nothing is left: the first reason.
        """

        def kept(work: Work) -> bool:
            if (why := reason(work)) is not None:
                self.skip(work.id, InputError(why))
            return why is None

        self.fixed = tuple(work for work in self.fixed if kept(work))
        self._md = [entry for entry in self._md if kept(entry[0])]
        self._modes = [entry for entry in self._modes if kept(entry[0])]
        self._skips.refuse_nothing_left(len(self.fixed) + len(self.starts), what="structures")

    def skip(self, id: str, error: BaseException) -> None:
        """Leave a structure out, with the place that it comes from."""
        file, row = self._place.get(id, (None, None))
        self._skips.add(error, item=id, file=file, row=row)

    def sampled(self, *, progress: bool) -> list[Structure]:
        """Run dynamics and draw displacements; a start with which that fails is left out."""
        found: list[Structure] = []
        for k, (start, md) in enumerate(self._md):
            with self._skipping(start):
                seed = self.seed + k
                found += structures.md(start.molecule, md, seed=seed, name=start.id, progress=progress)
        for k, (start, modes) in enumerate(self._modes):
            with self._skipping(start):
                found += _displaced(start, modes, seed=self.seed + k)
        self._skips.refuse_nothing_left(len(found) + len(self.fixed), what="structures")
        return found

    def skip_unsampled(self, sampled: Sequence[Structure]) -> None:
        """Leave out the starts of which there are no structures: it failed in an earlier call."""
        names = {structure.id.rpartition("-")[0] for structure in sampled}
        known = {entry.item for entry in self._skips.found}
        for start in self.starts:
            if start.id not in names and start.id not in known:
                self.skip(start.id, InputError("no structure could be sampled from it"))

    @contextmanager
    def _skipping(self, start: Structure) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            self.skip(start.id, error)

    def _frames(self, file: str) -> Iterator[tuple[int, Structure]]:
        """Yield the structures of a file that can be read, with the number of the frame."""
        try:
            for frame, structure in enumerate(structures.each(file), start=1):
                if isinstance(structure, FrameError):
                    self._skips.add(structure, item=structure.id, file=file, row=frame)
                else:
                    yield frame, structure
        except FAULTS as error:
            self._skips.add(error, item=text_of(Path(file).name), file=file)

    def _read(self, file: str) -> list[Structure]:
        """Return the structures of a file that can be read."""
        found = []
        for frame, structure in self._frames(file):
            self._place[structure.id] = (Path(file), frame)
            found.append(structure)
        return found

    def _files(self) -> list[Structure]:
        """Return the structures of all files; a name of several has the file's, or its folder's, in front."""
        found = {Path(file): list(self._frames(file)) for file in self.config.files}
        owners: dict[str, list[Path]] = {}
        for file, frames in found.items():
            for id in dict.fromkeys(structure.id for _, structure in frames):
                owners.setdefault(id, []).append(file)
        named: list[Structure] = []
        for file, frames in found.items():
            for frame, structure in frames:
                others = owners[structure.id]
                if len(others) > 1:
                    stems = {other.stem for other in others}
                    name = file.stem if len(stems) == len(others) else file.resolve().parent.name
                    structure = replace(structure, id=f"{text_of(name)}-{structure.id}")
                self._place[structure.id] = (file, frame)
                named.append(structure)
        return named

    def _dimers(self) -> list[Structure]:
        """Return each molecule of the first file beside each of the second."""
        config = self.config.dimers
        if config is None:
            return []
        pairs = itertools.product(self._read(config.first), self._read(config.second))
        return [
            dimer
            for k, (a, b) in enumerate(pairs)
            for dimer in structures.dimers(a, b, config, seed=self.seed + k)
        ]

    def _plans(self) -> list[Work]:
        """Return the plans of all sources that are made by workers."""
        plans: list[Work] = []
        config, seed = self.config, self.seed
        if (smiles := config.smiles) is not None:
            rows = structures.read_smiles(smiles.file) if smiles.file else []
            named = [(row.id, row.smiles) for row in rows]
            named += [(f"smiles-{k:05d}", text) for k, text in enumerate(smiles.list)]
            made = conformer_plans(named, smiles, seed=seed)
            lines = {row.id: row.line for row in rows}
            self._place |= {
                plan.id: (Path(str(smiles.file)), lines[plan.name]) for plan in made if plan.name in lines
            }
            plans += made
        if config.random is not None:
            plans += random_plans(config.random, seed=seed)
        if (complexes := config.complexes) is not None:
            fragments = [s for file in complexes.fragments for s in self._read(file)]
            plans += complex_plans(fragments, complexes, seed=seed)
        return plans

    def chosen(self, works: Sequence[Work]) -> list[Work]:
        """Return what is to be labelled, in its order."""
        config = self.config
        kept = [work for work in works if config.max_atoms is None or n_atoms(work) <= config.max_atoms]
        if config.order == "smallest":
            kept.sort(key=n_atoms)
        return kept[: config.limit]


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
