"""Conformers of molecules given as SMILES, by distance geometry and a force field (RDKit)."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from helmol.config import Config
from helmol.errors import InputError
from helmol.letters import text_of
from helmol.structures.assembly import packed
from helmol.structures.sense import check_distances
from helmol.structures.structure import Structure
from helmol.structures.xyz import decoded
from helmol.system import Molecule


class ConformersConfig(Config):
    """Set how many conformers to keep of each SMILES, and when two count as one."""

    n_conformers: int = Field(default=1, ge=1, le=100_000)
    """Conformers to keep of each molecule at most, those of lowest force-field energy."""

    n_embedded: int | None = Field(default=None, ge=1, le=1_000_000)
    """Conformers to embed before the selection; ``null`` is three times ``n_conformers``."""

    rmsd_ang: float = Field(default=0.5, ge=0, le=100)
    """Two conformers closer than this, Å (heavy atoms, best alignment, symmetry considered), are one."""


class NamedSmiles(NamedTuple):
    """A SMILES of a file.

    Attributes:
        id: its name there, or the file's stem and the line.
        smiles: the SMILES.
        line: of the file, from 1.
    """

    id: str
    smiles: str
    line: int


def read_smiles(path: Path | str) -> list[NamedSmiles]:
    """Read a file of lines ``SMILES [name]``, apart by blanks, tabs or commas.

    Empty lines, comments (``#``) and a header are skipped, as are extensions (``|...|``) after a SMILES.

    Returns:
        In the file's order.

    Raises:
        InputError: the file is missing or holds no SMILES.
    """
    path = Path(path)
    try:
        lines = decoded(path.read_bytes()).splitlines()
    except OSError as error:
        raise InputError(f"SMILES file {path} cannot be read: {error}") from error
    lines = [re.sub(r"\s\|[^|]*\|", " ", line) for line in lines]
    # No SMILES has a comma.
    rows = [
        (k, re.split(r"[\s,;]+", line.strip()))
        for k, line in enumerate(lines, 1)
        if line.strip() and line.lstrip()[0] != "#"
    ]
    if rows and rows[0][1][0].lower().startswith("smiles"):
        rows = rows[1:]
    if not rows:
        raise InputError(f"SMILES file {path} holds no SMILES")
    names = [columns[1] if len(columns) > 1 else "" for _, columns in rows]
    if len(set(names)) < len(names) or not all(names):
        width = max(5, len(str(len(lines))))
        names = [f"{text_of(path.stem)}-{k:0{width}d}" for k, _ in rows]
    return [NamedSmiles(name, columns[0], k) for name, (k, columns) in zip(names, rows, strict=True)]


def flat_molecule(smiles: str) -> tuple[tuple[int, ...], int, int]:
    """Return atomic numbers (hydrogens included), charge and spin = 2S of a SMILES, no geometry.

    Radicals of one molecule or of several add up to the highest spin.

    Raises:
        InputError: RDKit is missing, the SMILES cannot be read, or it has a dummy atom (``*``).
    """
    mol = _parse(smiles)
    atoms = list(mol.GetAtoms())
    if any(atom.GetAtomicNum() == 0 for atom in atoms):
        raise InputError(f"{smiles!r} has a dummy atom (*): real atoms are needed")
    return (
        tuple(atom.GetAtomicNum() for atom in atoms),
        sum(atom.GetFormalCharge() for atom in atoms),
        sum(atom.GetNumRadicalElectrons() for atom in atoms),
    )


def conformers(
    smiles: str, config: ConformersConfig, *, seed: int = 0, name: str = "conformer"
) -> list[Structure]:
    """Embed a SMILES with ETKDG, optimise with MMFF94, and keep distinct conformers of low energy.

    Several molecules (separated by dots) are embedded one by one, brought into contact at random, and
    optimised together.

    The random numbers depend on the seed and the SMILES alone, not on its place in a file. Where MMFF94
    lacks parameters UFF is used, and where that does too the embedded geometry is kept; the provenance
    says which.

    Args:
        smiles: of one molecule, or of several separated by dots.
        config: how many, and how different.
        seed: of the embedding.
        name: the conformers are called ``NAME-c00`` and so on.

    Returns:
        1 to ``n_conformers`` structures, lowest energy first.

    Raises:
        InputError: RDKit is missing, the SMILES cannot be read or has a dummy atom, or no sensible geometry
            could be made.

    Source: Wang, Witek, Landrum, Riniker, J. Chem. Inf. Model. 60, 2044 (2020) for ETKDG version 3.
    """
    numbers, charge, spin = flat_molecule(smiles)
    mol = _parse(smiles)
    embedded = _embed(mol, config.n_embedded or 3 * config.n_conformers, zlib.crc32(smiles.encode()) ^ seed)
    if not embedded:
        raise InputError(f"RDKit could not make a geometry of {smiles}")
    _separate(mol, embedded, seed)
    force_field, energies = _optimize(mol, embedded)
    kept = _distinct(mol, [embedded[k] for k in np.argsort(energies, kind="stable")], config)
    energy_of = dict(zip(embedded, energies, strict=True))
    for id in kept:
        check_distances(np.array(numbers), mol.GetConformer(id).GetPositions(), unit_stated=True)
    provenance = {"source": "conformers", "smiles": smiles, "force_field": force_field, "seed": seed}
    return [
        Structure(
            f"{name}-c{k:02d}",
            Molecule.from_angstrom(numbers, mol.GetConformer(id).GetPositions(), charge=charge, spin=spin),
            {**provenance, "energy_kcal_mol": energy_of[id] if force_field else None},
        )
        for k, id in enumerate(kept)
    ]


def _rdkit() -> Any:
    """Return RDKit's Chem, silent."""
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise InputError("structures from SMILES need RDKit: pip install 'helmol[smiles]'") from error
    rdBase.DisableLog("rdApp.*")
    return Chem


def _parse(smiles: str) -> Any:
    """Return RDKit's molecule with hydrogens."""
    chem = _rdkit()
    mol = chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise InputError(f"{smiles!r} is no SMILES that RDKit understands")
    return chem.AddHs(mol)


def _embed(mol: Any, n: int, seed: int) -> list[int]:
    """Embed conformers and return their ids; a second try starts from random coordinates."""
    from rdkit.Chem import rdDistGeom

    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed & 0x7FFFFFFF
    parameters.numThreads = 1
    found = list(rdDistGeom.EmbedMultipleConfs(mol, n, parameters))
    if not found:
        parameters.useRandomCoords = True
        found = list(rdDistGeom.EmbedMultipleConfs(mol, n, parameters))
    return found


def _separate(mol: Any, ids: list[int], seed: int) -> None:
    """Bring the molecules of every conformer into contact; RDKit embeds each of them about the origin."""
    parts = [list(atoms) for atoms in _rdkit().GetMolFrags(mol)]
    if len(parts) < 2:
        return
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    for id in ids:
        random, conformer = np.random.default_rng([seed & 0x7FFFFFFF, id]), mol.GetConformer(id)
        positions = np.asarray(conformer.GetPositions())
        placed = packed([numbers[part] for part in parts], [positions[part] for part in parts], random)
        for part, shape in zip(parts, placed, strict=True):
            for atom, place in zip(part, shape, strict=True):
                conformer.SetAtomPosition(atom, place.tolist())


def _optimize(mol: Any, ids: list[int]) -> tuple[str | None, list[float]]:
    """Optimise all conformers; return the force field's name and the energies, kcal/mol."""
    from rdkit.Chem import rdForceFieldHelpers as fields

    settings: Any = {"numThreads": 1, "maxIters": 1000, "ignoreInterfragInteractions": False}
    if fields.MMFFHasAllMoleculeParams(mol):
        name, results = "MMFF94", fields.MMFFOptimizeMoleculeConfs(mol, **settings)
    elif fields.UFFHasAllMoleculeParams(mol):
        name, results = "UFF", fields.UFFOptimizeMoleculeConfs(mol, **settings)
    else:
        return None, [0.0] * len(ids)
    return name, [float(energy) for _, energy in results]


def _distinct(mol: Any, ids: list[int], config: ConformersConfig) -> list[int]:
    """Return ids in the given order, without those close to one before."""
    from rdkit.Chem import rdMolAlign

    skeleton, kept = _rdkit().RemoveHs(mol), list[int]()
    for id in ids:
        if len(kept) == config.n_conformers:
            break
        if all(
            rdMolAlign.GetBestRMS(skeleton, skeleton, id, other, maxMatches=1000) >= config.rmsd_ang
            for other in kept
        ):
            kept.append(id)
    return kept
