"""Write small files in the schemas of published data sets, from PySCF matrices in the foreign order.

The tables of orders are written out here once more, so that a mistake in helmol's own shows.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import struct
from dataclasses import dataclass
from functools import cache

import h5py
import numpy as np
from pyscf import dft, gto

BOHR = 0.529177210903
WATER = ((8, 0.0, 0.02, 0.1), (1, 0.75, 0.0, -0.47), (1, -0.77, 0.05, -0.52))
FLUORIDE = ((9, 0.1, 0.0, -0.05), (1, 0.5, 0.55, 0.62))
# house[k] = sign[k] * orca[index[k]] for one shell.
ORCA = {
    0: ([0], [1]),
    1: ([2, 0, 1], [1, 1, 1]),
    2: ([4, 2, 0, 1, 3], [1, 1, 1, 1, 1]),
    3: ([6, 4, 2, 0, 1, 3, 5], [-1, 1, 1, 1, 1, 1, -1]),
}
PYSCF = {0: [0], 1: [1, 2, 0], 2: [0, 1, 2, 3, 4], 3: [0, 1, 2, 3, 4, 5, 6]}
# Places in PySCF's order of the shells of def2-TZVPD as ORCA 6 has them.
ORCA_SHELLS = {1: (0, 1, 2, 3, 4), 9: (0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 13, 5, 9, 12)}


@dataclass(frozen=True)
class Label:
    """One molecule as PySCF has it: Å, Eh, Eh/bohr, PySCF's order."""

    numbers: np.ndarray
    positions_ang: np.ndarray
    fock: np.ndarray
    overlap: np.ndarray
    energy: float
    forces: np.ndarray
    shells: tuple[int, ...]


@cache
def label(atoms, xc, basis="def2-svp", *, forces=False, density_fit=False) -> Label:
    """Converge one molecule."""
    mole = gto.M(atom=[(z, xyz) for z, *xyz in atoms], basis=basis, verbose=0)
    mf = dft.RKS(mole, xc=xc)
    if density_fit:
        mf = mf.density_fit()
    if mf.do_nlc():
        mf.nlcgrids.level = 0
    mf.conv_tol, mf.conv_tol_grad = 1e-12, 1e-7
    energy = mf.kernel()
    fock = mf.get_fock()
    gradient = np.zeros((len(atoms), 3))
    if forces:
        gradient = mf.nuc_grad_method().kernel()
    return Label(
        np.array([z for z, *_ in atoms]),
        np.array([xyz for _, *xyz in atoms]),
        (fock + fock.T) / 2,
        mf.get_ovlp(),
        float(energy),
        -gradient,
        tuple(int(mole.bas_angular(k)) for k in range(mole.nbas) for _ in range(mole.bas_nctr(k))),
    )


def gathered(matrix, table, shells, *, inverse=False):
    """Apply a table of ``(index, sign)`` per l to a matrix, or undo it."""
    index, sign, start = [], [], 0
    for l in shells:
        entry = table[l]
        one, signs = entry if isinstance(entry, tuple) else (entry, [1] * (2 * l + 1))
        index += [start + k for k in one]
        sign += signs
        start += 2 * l + 1
    index, sign = np.array(index), np.array(sign, dtype=float)
    if not inverse:
        return matrix[np.ix_(index, index)] * np.outer(sign, sign)
    result = np.empty_like(matrix)
    result[np.ix_(index, index)] = matrix * np.outer(sign, sign)
    return result


def house(matrix, shells):
    """PySCF → house."""
    return gathered(matrix, PYSCF, shells)


def orca(matrix, shells):
    """PySCF → ORCA, the shells where they are."""
    return gathered(house(matrix, shells), ORCA, shells, inverse=True)


def published_omol(one: Label, *, mistaken=True):
    """PySCF → ORCA 6 with its own sequence of shells → what the data set holds."""
    numbers, start, places, l_sorted = one.numbers.tolist(), 0, [], []
    for z in numbers:
        places += [start + k for k in ORCA_SHELLS[z]]
        start += len(ORCA_SHELLS[z])
    offsets = np.concatenate([[0], np.cumsum([2 * l + 1 for l in one.shells])])
    order = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in places])
    true_shells = [one.shells[k] for k in places]
    sequence = house(one.fock, one.shells)[np.ix_(order, order)]
    if not mistaken:
        return sequence
    in_orca = gathered(sequence, ORCA, true_shells, inverse=True)
    start = 0
    for z in numbers:
        n = len(ORCA_SHELLS[z])
        l_sorted += sorted(true_shells[start : start + n])
        start += n
    return gathered(in_orca, ORCA, l_sorted)


def write_md17(path, labels, *, blobs=False, matrices=orca, energy_mean=0.0, force_factor=1.0, scale=1.0):
    """ASE's SQLite schema; ``blobs`` chooses ASE's later encoding of ``data``."""
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE systems (id INTEGER PRIMARY KEY AUTOINCREMENT, unique_id TEXT UNIQUE, ctime REAL,"
            " numbers BLOB, positions BLOB, cell BLOB, pbc INTEGER, key_value_pairs TEXT, data BLOB,"
            " natoms INTEGER)"
        )
        db.execute("CREATE TABLE information (name TEXT, value TEXT)")
        metadata = {"mean_energy": energy_mean} if energy_mean else {}
        db.execute("INSERT INTO information VALUES ('metadata', ?)", (json.dumps(metadata),))
        for k, one in enumerate(labels):
            data = {
                "energy": np.array([one.energy - energy_mean]),
                "forces": (one.forces * force_factor).astype(np.float32),
                "hamiltonian": matrices(one.fock, one.shells).astype(np.float32),
                "overlap": matrices(one.overlap, one.shells).astype(np.float32),
            }
            cell = _ase_blob(data) if blobs else _base64(data)
            row = (
                f"u{k}", one.numbers.astype("<i4").tobytes(),
                (one.positions_ang * scale).astype("<f8").tobytes(), cell, len(one.numbers),
            )  # fmt: skip
            db.execute(
                "INSERT INTO systems (unique_id, numbers, positions, data, natoms) VALUES (?,?,?,?,?)", row
            )


def _base64(data) -> str:
    text = {}
    for name, array in data.items():
        text[name] = base64.b64encode(array.tobytes()).decode()
        text[f"_shape_{name}"], text[f"_dtype_{name}"] = list(array.shape), str(array.dtype)
    return json.dumps(text)


def _ase_blob(data) -> bytes:
    parts, pointers, offset = [], {}, 8
    for name, array in data.items():
        raw = array.tobytes()
        pointers[name] = {"__ndarray__": [list(array.shape), array.dtype.name, offset]}
        parts.append(raw)
        offset += len(raw)
    return struct.pack("<q", offset) + b"".join(parts) + json.dumps(pointers).encode()


def _pyscf(matrix, _shells):
    return matrix


def write_qh9_stable(path, labels, *, matrices=_pyscf, scale=1.0, cut=0):
    """``cut``: bytes missing from the last Fock matrix."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE data (id INTEGER PRIMARY KEY, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)")
        for k, one in enumerate(labels):
            fock = matrices(one.fock, one.shells).astype("<f8").tobytes()
            row = (
                k, len(one.numbers), one.numbers.astype("<i4").tobytes(),
                (one.positions_ang * scale).astype("<f8").tobytes(),
                fock[: len(fock) - cut] if k == len(labels) - 1 else fock,
            )  # fmt: skip
            db.execute("INSERT INTO data VALUES (?,?,?,?,?)", row)


def write_qh9_dynamic(path, labels, *, scale=1 / BOHR, molecules=None, converged=None):
    molecules = molecules or range(len(labels))
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE data (id BLOB, geo_id BLOB, N INTEGER, Z BLOB, pos BLOB, ekin FLOAT, epot FLOAT,"
            " etot FLOAT, time FLOAT, Ham BLOB, converged BOOL)"
        )
        for k, (molecule, one) in enumerate(zip(molecules, labels, strict=True)):
            row = (
                struct.pack("<q", molecule), k, len(one.numbers), one.numbers.astype("<i4").tobytes(),
                (one.positions_ang * scale).astype("<f8").tobytes(), 0.1, -76.0, -75.9, 0.12 * k,
                one.fock.astype("<f8").tobytes(), 1 if converged is None else converged[k],
            )  # fmt: skip
            db.execute("INSERT INTO data VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)


def write_nabladft(path, labels, *, matrices=house, version=2, missing=(), scale=1 / BOHR):
    """``missing``: columns that are NULL in every row."""
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE data (id INTEGER PRIMARY KEY, Z BLOB, R BLOB, E FLOAT, F BLOB, H BLOB, S BLOB,"
            " C BLOB)"
        )
        db.execute(
            "CREATE TABLE dataset_ids (id INTEGER PRIMARY KEY, MOSES_ID INTEGER, CONFORMER_ID INTEGER)"
        )
        db.execute("CREATE TABLE basisset (Z INTEGER PRIMARY KEY, orbitals BLOB)")
        db.execute("INSERT INTO basisset VALUES (1, ?)", (np.array([0, 0, 1], "<i4").tobytes(),))
        for k, one in enumerate(labels):
            cells = {
                "Z": one.numbers.astype("<i4"),
                "R": (one.positions_ang * scale).astype("<f4"),
                "F": one.forces.astype("<f4") * (version > 1),
                "H": matrices(one.fock, one.shells).astype("<f4"),
                "S": matrices(one.overlap, one.shells).astype("<f4"),
                "C": np.ones((3, 3), "<f4") * (version > 1),
            }
            blobs = {n: None if n in missing else a.tobytes() for n, a in cells.items()}
            energy = None if "E" in missing else one.energy
            row = (k, blobs["Z"], blobs["R"], energy, blobs["F"], blobs["H"], blobs["S"], blobs["C"])
            db.execute("INSERT INTO data VALUES (?,?,?,?,?,?,?,?)", row)
            db.execute("INSERT INTO dataset_ids VALUES (?,?,?)", (k, 100 + k, k))


def write_omol(path, labels, *, matrices=published_omol, scale=1.0, cut=0):
    with h5py.File(path, "w") as file:
        for k, one in enumerate(labels):
            group = file.create_group(f"part{k % 2}/mol{k}")
            fock = matrices(one)
            packed = fock[np.triu_indices(len(fock))]
            group["fock"] = packed[: len(packed) - cut]
            group["elements"] = one.numbers
            group["coords"] = one.positions_ang * scale
            group.attrs["charge"], group.attrs["spin"] = 0, 1
