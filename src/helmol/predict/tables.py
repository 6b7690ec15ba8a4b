"""Tables of predictions: a row per molecule, per atom, per bond; frames that ASE reads.

All are written while the predictions are made, beside their targets, and get their names together at the end:
what is in a folder is of one call.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from helmol import structures
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.files import replacing
from helmol.predict.prediction import all_flags, new_pairs
from helmol.properties import frontier
from helmol.system import Molecule
from helmol.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU, EV_PER_HARTREE

COLUMNS = (
    "id", "formula", "file", "homo_Eh", "lumo_Eh", "gap_Eh", "gap_eV", "dipole_debye", "residual_Eh", "moved",
    "flags",
)  # fmt: skip
"""``moved``: electrons that the first SCF step moves, beside ``residual_Eh``; ``flags``: what is odd."""

ENERGY = ("energy_Eh", "energy_error_Eh")
QUADRUPOLE = tuple(f"quadrupole_{xy}_debye_angstrom" for xy in ("xx", "xy", "xz", "yy", "yz", "zz"))
"""Further columns where it is asked for: traceless, about the origin."""

ATOM_COLUMNS = (
    "id", "atom", "element", "x_angstrom", "y_angstrom", "z_angstrom", "mulliken_charge", "lowdin_charge",
    "iao_charge", "mulliken_spin", "lowdin_spin",
)  # fmt: skip
"""Atoms count from 1; charges in e, spins in unpaired electrons."""

BOND_COLUMNS = (
    "id", "atom_1", "atom_2", "element_1", "element_2", "distance_angstrom", "mayer_bond_order",
    "wiberg_bond_order",
)  # fmt: skip
LEAST_BOND_ORDER = 0.1
"""Pairs of atoms with a smaller bond order, by both kinds, have no row."""

TABLE, ATOMS, BONDS, FRAMES = "summary.csv", "atoms.csv", "bonds.csv", "predictions.extxyz"
TEXTS = ("id", "formula", "file", "flags", "element", "element_1", "element_2")
NUMBERS = ("atom", "atom_1", "atom_2")
"""Columns that hold texts, and whole numbers; all others are floating-point numbers."""

Arrays = Mapping[str, npt.NDArray[Any]]


def remove_tables(out: Path) -> None:
    """Remove the tables that an earlier call left in a folder."""
    for name in (TABLE, ATOMS, BONDS, FRAMES):
        (out / name).unlink(missing_ok=True)
        (out / name).with_suffix(".parquet").unlink(missing_ok=True)


class Tables:
    """Write tables row by row; a context manager that gives them their names when it ends well.

    Args:
        out: folder.
        properties: names of what is asked for (:data:`helmol.predict.derived.PROPERTIES`).
        extxyz: whether to write frames.
        parquet: whether to write every table as Parquet, too.

    Attributes:
        names: of the files.
        rows: those of the summary.
    """

    def __init__(
        self, out: Path, *, properties: Sequence[str] = (), extxyz: bool = False, parquet: bool = False
    ) -> None:
        self._out, self._parquet = out, parquet
        energy = ENERGY if "energy" in properties else ()
        quadrupole = QUADRUPOLE if "quadrupole" in properties else ()
        self._columns = {TABLE: (*COLUMNS, *energy, *quadrupole)}
        if {"charges", "spins"} & {*properties}:
            self._columns[ATOMS] = ATOM_COLUMNS
        if "bonds" in properties:
            self._columns[BONDS] = BOND_COLUMNS
        self._extxyz = extxyz
        names = [name for name in self._columns]
        self.names = [*names, *(f"{name.removesuffix('.csv')}.parquet" for name in names if parquet)]
        self.names += [FRAMES] if extxyz else []
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> Tables:
        self._files = ExitStack()
        self._naming = ExitStack()
        self._writers: dict[str, csv.DictWriter[str]] = {}
        self._paths: dict[str, Path] = {}
        for name, columns in self._columns.items():
            self._writers[name] = csv.DictWriter(self._open(name), columns, lineterminator="\n")
            self._writers[name].writeheader()
        self._frames = self._open(FRAMES) if self._extxyz else None
        return self

    def _open(self, name: str) -> IO[str]:
        """Open the file that will have a name."""
        self._paths[name] = self._naming.enter_context(replacing(self._out / name))
        file = self._paths[name].open("w", encoding="utf-8", errors="surrogateescape", newline="")
        return self._files.enter_context(file)

    def __exit__(self, *error: Any) -> bool | None:
        try:
            self._files.close()
            if error[0] is None:
                for name in self._columns if self._parquet else ():
                    target = (self._out / name).with_suffix(".parquet")
                    write_parquet(self._paths[name], self._naming.enter_context(replacing(target)))
                remove_tables(self._out)
        except BaseException as failure:
            self._naming.__exit__(type(failure), failure, failure.__traceback__)
            raise
        return self._naming.__exit__(*error)

    def add(self, id: str, molecule: Molecule, file: str, arrays: Arrays) -> None:
        """Add a molecule.

        Args:
            id: its name.
            molecule: its nuclei.
            file: where its arrays are.
            arrays: those of :meth:`helmol.predict.Prediction.arrays` and of its properties, matrices of
                orbitals left out.
        """
        row = summary_row(id, molecule, file, arrays)
        self.rows.append(row)
        self._write(TABLE, row)
        if ATOMS in self._columns:
            for number in range(molecule.n_atoms):
                self._write(ATOMS, atom_row(id, molecule, number, arrays))
        if BONDS in self._columns:
            for entry in bond_rows(id, molecule, arrays):
                self._write(BONDS, entry)
        if self._frames is not None:
            self._frames.write(frame(id, molecule, row, arrays))

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        columns = self._columns[name]
        self._writers[name].writerow({k: "" if row.get(k) is None else row[k] for k in columns})


def summary_row(id: str, molecule: Molecule, file: str, arrays: Arrays) -> dict[str, Any]:
    """Return the row of a molecule."""
    homo, lumo = frontier(arrays["mo_energy"], arrays["mo_occ"])
    moved = float(arrays["moved"]) if "moved" in arrays else None
    row: dict[str, Any] = {
        "id": id,
        "formula": molecule.formula,
        "file": file,
        "homo_Eh": homo,
        "lumo_Eh": lumo,
        "gap_Eh": lumo - homo,
        "gap_eV": (lumo - homo) * EV_PER_HARTREE,
        "dipole_debye": float(np.linalg.norm(arrays["dipole"])) if "dipole" in arrays else None,
        "residual_Eh": float(arrays["residual"]) if "residual" in arrays else None,
        "moved": moved,
        "flags": "; ".join(all_flags(lumo - homo, moved, float(arrays["mo_occ"].sum()), new_pairs(arrays))),
    }
    if "energy" in arrays:
        row |= dict(zip(ENERGY, (float(arrays["energy"]), float(arrays["energy_error"])), strict=True))
    if "quadrupole" in arrays:
        row |= dict(zip(QUADRUPOLE, arrays["quadrupole"][np.triu_indices(3)].tolist(), strict=True))
    return row


def atom_row(id: str, molecule: Molecule, number: int, arrays: Arrays) -> dict[str, Any]:
    """Return the row of an atom, which counts from 0 here."""
    x, y, z = molecule.positions_ang[number].tolist()
    sources = ("charges", "lowdin_charges", "iao_charges", "mulliken_spins", "lowdin_spins")
    values = [float(arrays[name][number]) if name in arrays else None for name in sources]
    first = (id, number + 1, SYMBOLS[molecule.numbers[number]], x, y, z)
    return dict(zip(ATOM_COLUMNS, (*first, *values), strict=True))


def bond_rows(id: str, molecule: Molecule, arrays: Arrays) -> list[dict[str, Any]]:
    """Return the rows of the pairs of atoms with a bond order worth telling."""
    mayer, wiberg = arrays["mayer_bond_orders"], arrays["wiberg_bond_orders"]
    told = np.triu(np.maximum(mayer, wiberg) >= LEAST_BOND_ORDER, 1)
    rows = []
    for i, j in np.argwhere(told).tolist():
        distance = float(np.linalg.norm(molecule.positions[i] - molecule.positions[j])) * ANGSTROM_PER_BOHR
        elements = SYMBOLS[molecule.numbers[i]], SYMBOLS[molecule.numbers[j]]
        values = (id, i + 1, j + 1, *elements, distance, float(mayer[i, j]), float(wiberg[i, j]))
        rows.append(dict(zip(BOND_COLUMNS, values, strict=True)))
    return rows


def frame(id: str, molecule: Molecule, row: Mapping[str, Any], arrays: Arrays) -> str:
    """Return a frame of extended xyz: ASE's ``dipole`` (e·Å) and ``charges``; levels in eV in its header."""
    header: dict[str, Any] = {
        name: EV_PER_HARTREE * row[source]
        for name, source in (("homo_eV", "homo_Eh"), ("lumo_eV", "lumo_Eh"), ("gap_eV", "gap_Eh"))
    }
    if "dipole" in arrays:
        header["dipole"] = arrays["dipole"] / DEBYE_PER_AU * ANGSTROM_PER_BOHR
    names = ("charges", "lowdin_charges", "iao_charges", "mulliken_spins", "lowdin_spins")
    columns = {name: arrays[name] for name in names if name in arrays}
    return structures.extxyz_text(id, molecule, header=header, columns=columns)


def check_parquet() -> None:
    """Raise InputError where no Parquet can be written."""
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError("tables as Parquet need pyarrow: pip install pyarrow, or leave --parquet out")


def write_parquet(table: Path, target: Path) -> None:
    """Write a table of comma-separated values as Parquet: the same numbers, piece by piece."""
    import pyarrow as pa
    from pyarrow import csv as pa_csv
    from pyarrow import parquet

    with table.open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    kinds = {
        name: pa.string() if name in TEXTS else pa.int64() if name in NUMBERS else pa.float64()
        for name in columns
    }
    convert = pa_csv.ConvertOptions(column_types=kinds, null_values=[""], strings_can_be_null=False)
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    with (
        pa_csv.open_csv(table, parse_options=parse, convert_options=convert) as reader,
        parquet.ParquetWriter(target, reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
