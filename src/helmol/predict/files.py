"""Predict everything in files: arrays of every molecule, a table, other formats on request."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helmol.errors import DomainError, HelmolError, InputError
from helmol.files import entries, file_stem, replacing
from helmol.inputs import Item, molecules_at
from helmol.letters import letters
from helmol.locks import Claim
from helmol.places import PathLike, Places
from helmol.predict.derived import attributes, missing_attributes, property_names
from helmol.predict.energy_files import remove_energies
from helmol.predict.kept import LARGE, ONE_FILE, Kept, opened, without_large
from helmol.predict.prediction import Prediction
from helmol.predict.tables import COLUMNS as COLUMNS
from helmol.predict.tables import Tables, check_parquet, remove_tables
from helmol.predict.trained import TrainedModel
from helmol.progress import Progress
from helmol.repeats import in_one_call
from helmol.shards import shard_of
from helmol.skipped import FAULTS, Skips
from helmol.store import Store
from helmol.system import Molecule

log = logging.getLogger("helmol.predict")

MOLECULES_AT_A_TIME = 64

Values = npt.NDArray[Any]
Writer = Callable[[Prediction, Path], None]
"""Writes another format. Where it has a method ``fits(path)``, a file of earlier that does not fit is written
anew, such as a cube of other points."""

_FIELD = r"(?:density|spin|esp|(?:homo|lumo|mo)[\w+-]*)"
_OTHER = re.compile(rf"(?P<stem>.+)\.(?:molden|chk|dos\.png|{_FIELD}\.cube)")
"""What may stand beside the arrays of the same molecule."""


@in_one_call()
def predict_file(
    model: TrainedModel,
    path: Places,
    *,
    out: PathLike,
    residual: bool = False,
    properties: Sequence[str] = (),
    writers: Mapping[str, Writer] | None = None,
    extxyz: bool = False,
    parquet: bool = False,
    one_file: bool = False,
    matrices: bool = True,
    split: str = "all",
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    compress: bool = False,
    max_edges: int = 20000,
    strict: bool = False,
) -> dict[str, Any]:
    """Predict all molecules of structure files or stores.

    A molecule whose arrays are there already, from the same model, geometry, charge and spin, is not
    predicted again, so that an interrupted run continues, and ends in the same bits; its row of the table,
    and properties and other formats that are missing, are made of the arrays. A molecule that cannot be
    predicted is left out, named and counted. But for the rows of the table, what is in memory does not grow
    with the number of molecules.

    Args:
        model: the model.
        path: anything :func:`helmol.structures.read` reads, a store (``.h5``), or several of these, folders
            and patterns too.
        out: folder for ``NAME.npz`` and ``summary.csv``.
        residual: whether to build one Fock matrix per molecule and report ``‖FDS − SDF‖``.
        properties: names of :data:`helmol.predict.derived.PROPERTIES`: arrays beside the others; ``charges``
            and ``spins`` make ``atoms.csv``, ``bonds`` makes ``bonds.csv``.
        writers: other formats by suffix (``.molden``): called with a prediction and the file to
            write, which gets its name when it is whole.
        extxyz: whether to write ``predictions.extxyz``: geometries with dipoles and charges, for ASE.
        parquet: whether to write the tables as Parquet, too.
        one_file: whether the arrays of all go into ``predictions.h5``
            (:class:`helmol.predict.PredictionFile`) instead of a ``.npz`` each.
        matrices: whether to keep matrices of orbitals (``fock overlap density mo_coeff``), which take nearly
            all the space; ``writers`` need them.
        split: split of a store, or ``"all"``.
        shard: ``(i, n)`` takes the i-th of n parts, i from 1 to n, for the jobs of an array, each with an
            ``out`` of its own; names of files are those of the whole.
        overwrite: whether to predict again what is there; ``predictions.h5`` is made anew.
        compress: whether to write compressed arrays, which takes longer than the prediction.
        max_edges: atom pairs per batch.
        strict: whether the first molecule that cannot be predicted is an error.

    Returns:
        ``n_molecules``, ``n_predicted``, ``n_kept``, ``n_flagged``, ``n_others`` (results of earlier calls
        in ``out`` that are not in the table), ``molecules`` (rows of the table), ``tables`` (names of the
        files), ``n_skipped`` and ``skipped`` (:class:`helmol.skipped.Skipped`).

    Raises:
        DomainError: a store of another functional or basis, or not one molecule inside the model's domain.
        InputError: no readable molecule, a file in ``out`` that is no result of a prediction, or requests
            that do not go together.
        BusyError: another process writes to ``out``.
    """
    out, skips = Path(out), Skips(strict=strict)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder with --out")
    if writers and not matrices:
        raise InputError(f"{', '.join(writers)} files need the matrices of orbitals: keep them")
    if parquet:
        check_parquet()
    wanted = property_names(properties, unrestricted=_unrestricted(model))
    with molecules_at(path, skips, split=split, accept=lambda store: _accept(model, store)) as found:
        items = [item for item in found if _learnt(model, item, skips)]
        skips.refuse_nothing_left(len(items))
        named = shard_of(list(_named(items)), shard)
        with (
            Claim(out, folder=True),
            opened(
                out, one_file=one_file, model=model.fingerprint, compress=compress, overwrite=overwrite
            ) as kept,
        ):
            run = Run(
                model, out, kept, skips, properties=wanted, writers=writers or {}, residual=residual,
                matrices=matrices, overwrite=overwrite, max_edges=max_edges,
            )  # fmt: skip
            with Tables(out, properties=wanted, extxyz=extxyz, parquet=parquet) as tables:
                predicted = run.predict(named, tables)
                skips.refuse_nothing_left(len(tables.rows))
            if not model.has_energy:
                # Of another model, and nothing says so.
                remove_energies(out)
            others = kept.names() - run.done
    rows = tables.rows
    n_others = len(others)
    if one_file:
        n_others += sum(path.suffix == ".npz" for path in entries(out))
    else:
        n_others += (out / ONE_FILE).exists()
    return {
        "n_molecules": len(rows), "n_predicted": predicted, "n_kept": len(rows) - predicted,
        "n_flagged": sum(bool(row["flags"]) for row in rows), "n_others": n_others, "molecules": rows,
        "tables": tables.names, **skips.json(),
    }  # fmt: skip


def _unrestricted(model: TrainedModel) -> bool:
    """Return whether a model predicts two spins."""
    return model.domain.n_spins == 2


def _accept(model: TrainedModel, store: Store) -> None:
    """Refuse a store of another level.

    Its reference matrices are taken as they are: another functional has others.
    """
    model.domain.check_data(store.level, store.basis.part(model.domain.basis.elements))


def _learnt(model: TrainedModel, item: Item, skips: Skips) -> bool:
    """Return whether the model has learnt such molecules."""
    try:
        model.domain.check(item.molecule)
    except DomainError as error:
        skips.add(error, item=item.id, file=item.file, row=item.row)
        return False
    return True


def _named(items: Iterable[Item]) -> Iterator[tuple[Item, str]]:
    """Yield molecules with names for their files, all different."""
    seen: set[str] = set()
    for item in items:
        yield item, _unique(item.id, seen)


def _unique(name: str, seen: set[str]) -> str:
    """Return a file name made of ``name``, different from all before."""
    plain = stem = file_stem(name)
    number = 1
    while plain in seen:
        number += 1
        plain = f"{stem}-{number}"
    seen.add(plain)
    return plain


def portions(named: Iterable[tuple[Item, str]], *, max_edges: int) -> Iterator[list[tuple[Item, str]]]:
    """Yield runs of molecules that are predicted together: one batch of the network each.

    They depend on nothing but the molecules: the last bits of a prediction depend on what else is in its
    batch.
    """
    portion: list[tuple[Item, str]] = []
    edges = 0
    for item, name in named:
        more = item.molecule.n_atoms * (item.molecule.n_atoms - 1)
        if portion and (len(portion) == MOLECULES_AT_A_TIME or edges + more > max_edges):
            yield portion
            portion, edges = [], 0
        portion.append((item, name))
        edges += more
    if portion:
        yield portion


@dataclass
class Run:
    """Predict what is missing, for :func:`predict_file`, whose arguments these are."""

    model: TrainedModel
    out: Path
    kept: Kept
    skips: Skips
    properties: Sequence[str] = ()
    writers: Mapping[str, Writer] = field(default_factory=dict)
    residual: bool = False
    matrices: bool = True
    overwrite: bool = False
    max_edges: int = 20000
    n_predicted: int = 0
    done: set[str] = field(default_factory=set)
    others: dict[str, list[Path]] = field(default_factory=dict)

    def predict(self, named: Sequence[tuple[Item, str]], tables: Tables) -> int:
        """Predict what is missing, tell the tables of all; return how many results are new."""
        self.others = _others(self.out)
        with Progress("Predict", total=len(named), unit="molecules") as bar:
            for portion in portions(named, max_edges=self.max_edges):
                before = self.n_predicted
                self._predict_portion(portion, tables)
                bar.advance(len(portion), made=self.n_predicted - before)
        return self.n_predicted

    def _predict_portion(self, portion: Sequence[tuple[Item, str]], tables: Tables) -> None:
        """Predict what is missing of a portion."""
        there = {name: self.usable(item.molecule, name) for item, name in portion}
        fresh: dict[str, Prediction] = {}
        if missing := {name for name, arrays in there.items() if arrays is None}:
            if not self.n_predicted:
                remove_tables(self.out)  # of before; they are written when all is there
            # All of them, as the first time: the last bits depend on what else is in a batch.
            for item, name, prediction in self._predictions(portion):
                if name in missing:
                    there[name] = self._keep(item, name, prediction)
                    fresh[name] = prediction
                    self.n_predicted += 1
            self.kept.commit()
        for item, name in portion:
            arrays = there[name]
            if arrays is None:
                continue
            try:
                self.write_missing(name, fresh.pop(name, None))
            except FAULTS as error:
                self.skips.add(error, item=item.id, file=item.file, row=item.row)
            self.done.add(name)
            tables.add(item.id, item.molecule, self.kept.file(name), arrays)

    def _predictions(self, portion: Sequence[tuple[Item, str]]) -> Iterator[tuple[Item, str, Prediction]]:
        """Read and predict molecules together and yield those that can be predicted."""
        read: list[tuple[Item, str, Any]] = []
        for item, name in portion:
            try:
                read.append((item, name, item.read()))
            except FAULTS as error:
                self.skips.add(error, item=item.id, file=item.file, row=item.row)
        contents = [content for *_, content in read]
        found = self.model.predict_each(contents, residual=self.residual, max_edges=self.max_edges)
        for (item, name, _), prediction in zip(read, found, strict=True):
            if isinstance(prediction, HelmolError):
                self.skips.add(prediction, item=item.id, file=item.file, row=item.row)
            else:
                yield item, name, prediction

    def _keep(self, item: Item, name: str, prediction: Prediction) -> dict[str, Values]:
        """Write the arrays of a prediction; return all but the large ones."""
        for path in self.others.pop(name, []):
            path.unlink(missing_ok=True)  # made of an earlier result
        for suffix in self.writers:
            (self.out / f"{name}{suffix}").unlink(missing_ok=True)
        arrays: dict[str, Values] = {
            "id": np.array(letters(item.id)),
            "model": np.array(self.model.fingerprint),
            **prediction.arrays(),
            **attributes(prediction, missing_attributes({}, self.properties)),
            "properties": np.array(self.properties, dtype=np.str_),
        }
        self.kept.write(name, arrays if self.matrices else without_large(arrays))
        return without_large(arrays)

    def usable(self, molecule: Molecule, name: str) -> dict[str, Values] | None:
        """Return a finished result of this model for this molecule, but for its large arrays.

        Properties that it lacks are computed and written.

        Raises:
            InputError: a file of that name is no result of a prediction; it is left alone.
        """
        if self.overwrite:
            return None
        # All of it: what is damaged is not kept.
        data = self.kept.read(name)
        if data is None or not is_of(data, molecule, self.model.fingerprint):
            return None
        if self.residual and "residual" not in data:
            return None
        whole = {*LARGE} <= {*data}
        tried = data["properties"].tolist() if "properties" in data else []
        if not whole and (self.matrices or {*self.properties} - {*tried}):
            return None
        # Again, too, what could not be had: it may be for lack of a package.
        lacking = missing_attributes(data, self.properties)
        if lacking and whole:
            if found := attributes(self._loaded(name, data), lacking):
                asked = dict.fromkeys([*tried, *self.properties])
                data |= {**found, "properties": np.array([*asked], dtype=np.str_)}
                self.kept.write(name, data)
                self.kept.commit()
        return without_large(data)

    def _loaded(self, name: str, data: Mapping[str, Values]) -> Prediction:
        """Return the prediction that arrays of this model make."""
        where = str(self.out / self.kept.file(name))
        found = Prediction.from_arrays(data, id=str(data.get("id", name)), where=where)
        if found.basis is None:
            # Results of helmol 0.1 do not say it.
            domain = self.model.domain
            found = replace(found, basis=domain.basis.part(found.molecule.numbers), level=domain.level)
        return found

    def write_missing(self, name: str, prediction: Prediction | None) -> None:
        """Write in other formats what only the arrays say, of this call or an earlier one."""
        for suffix, writer in self.writers.items():
            path = self.out / f"{name}{suffix}"
            if path.exists() and getattr(writer, "fits", Path.exists)(path):
                continue
            if prediction is None:
                data = self.kept.read(name)
                if data is None:
                    raise InputError(f"{self.out / self.kept.file(name)} is gone")
                prediction = self._loaded(name, data)
            with replacing(path) as temporary:
                writer(prediction, temporary)


def is_of(data: Mapping[str, Values], molecule: Molecule, fingerprint: str) -> bool:
    """Return whether arrays are a result of one model for a molecule; earlier ones had no charge and spin."""
    wanted: dict[str, Any] = {
        "numbers": molecule.numbers, "positions": molecule.positions,
        "charge": molecule.charge, "spin": molecule.spin,
    }  # fmt: skip
    same = str(data.get("model")) == fingerprint and {*wanted} <= {*data}
    return same and all(np.array_equal(data[key], value) for key, value in wanted.items())


def _others(out: Path) -> dict[str, list[Path]]:
    """Return by name of the molecule what stands beside its arrays in other formats."""
    found: dict[str, list[Path]] = {}
    for path in entries(out):
        if match := _OTHER.fullmatch(path.name):
            found.setdefault(match["stem"], []).append(path)
    return found
