"""Make the structures of the study: small organic molecules, four frames each of 500 K dynamics.

    python benchmarks/transfer/make_structures.py --out structures.extxyz     (needs RDKit and helmol[md])
    helmol generate benchmarks/transfer/labels.yaml --out transfer.h5

Every connected graph of up to four heavy atoms C, N, O, F with bond orders that fill the valences, less the
groups in ``UNWANTED`` (strained or reactive), embedded by RDKit, relaxed and shaken by GFN2-xTB. Molecules
whose bonds changed on the way are dropped. The smallest come first, frame by frame, so that any beginning
of the file is a balanced set. Five CPU minutes; 161 molecules.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem

from helmol import structures
from helmol.structures import DynamicsConfig, Structure
from helmol.system import Molecule

log = logging.getLogger("helmol.benchmarks")

VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}
ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
UNWANTED = (
    "[O,F]~[O,F]", "N~F", "[N]=[N,O]", "[#7;r]~[#7,#8]", "[#7]~[#7,#8]~[#7,#8]", "[a]", "[R2]", "N-[N,O]-C#*",
    "[NX3;!$(N-C=[O,N])]-[CX3]=[CX3]", "[OX2H]-[C]=[C]", "[C]=[C]=[C]=[C]", "C#C-[OH]", "[OH]C#*", "[NX3]C#C",
    "[OX2H][CX4][OX2H]", "[OX2H][CX4][NX3]", "[NX3][CX4][NX3]", "[CX4]([F])[OX2H]", "[CX4](F)[NX3]",
    "[r3]=[r3]", "[r4]=[r4]", "[r]=C=*", "[R]#*", "[C;R]=[C;R]", "O=C=[C,N]", "[NX2]=[C]=*",
    "[CX3H1,CX3](=[NX2H])", "[CX2]#[CX2]F", "[C]=[C]F",
)  # fmt: skip
FRAMES = 4
SMALLEST = 120
AOS = {1: 5}
"""def2-SVP functions of hydrogen; the other elements here have 14."""


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    RDLogger.DisableLog("rdApp.*")
    sampled = {}
    for number, smiles in enumerate(molecules()):
        frames = sample(smiles, number)
        if frames is None:
            log.info("%s dropped", smiles)
        else:
            sampled[f"m{number:03d}"] = frames
    structures.write(arguments.out, in_order(sampled))


def molecules() -> list[str]:
    """Return the SMILES of all molecules, small ones first."""
    bad = [Chem.MolFromSmarts(pattern) for pattern in UNWANTED]
    found = {smiles for n in range(1, 5) for smiles in of_size(n, bad)} - {"O=C=O"}
    return sorted(found, key=lambda smiles: (Chem.MolFromSmiles(smiles).GetNumHeavyAtoms(), smiles))


def of_size(n: int, bad: list[Chem.Mol]) -> Iterator[str]:
    """Yield the molecules of ``n`` heavy atoms, some more than once."""
    pairs = list(itertools.combinations(range(n), 2))
    sizes = range(n - 1, min(n + 1, len(pairs)) + 1)
    for chosen in itertools.chain.from_iterable(itertools.combinations(pairs, k) for k in sizes):
        for orders in itertools.product(ORDERS, repeat=len(chosen)):
            bonds = dict(zip(chosen, orders, strict=True))
            degrees = [sum(order for pair, order in bonds.items() if i in pair) for i in range(n)]
            for atoms in itertools.product(VALENCE, repeat=n):
                if "C" not in atoms or atoms.count("F") > 2:
                    continue
                if all(d <= VALENCE[a] for d, a in zip(degrees, atoms, strict=True)):
                    smiles = as_smiles(atoms, bonds, bad)
                    if smiles is not None and "." not in smiles:
                        yield smiles


def as_smiles(atoms: tuple[str, ...], bonds: dict[tuple[int, int], int], bad: list[Chem.Mol]) -> str | None:
    """Return the SMILES of a graph, ``None`` if it is no molecule or unwanted."""
    graph = Chem.RWMol()
    for atom in atoms:
        graph.AddAtom(Chem.Atom(atom))
    for (i, j), order in bonds.items():
        graph.AddBond(i, j, ORDERS[order])
    try:
        Chem.SanitizeMol(graph)
    except ValueError:
        return None
    if any(a.GetNumRadicalElectrons() for a in graph.GetAtoms()) or any(map(graph.HasSubstructMatch, bad)):
        return None
    return str(Chem.MolToSmiles(graph))


def sample(smiles: str, number: int) -> list[Structure] | None:
    """Return frames of one molecule's dynamics, ``None`` if its bonds changed."""
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(graph, randomSeed=7) != 0:
        return None
    AllChem.MMFFOptimizeMolecule(graph)
    numbers = [atom.GetAtomicNum() for atom in graph.GetAtoms()]
    start = Molecule.from_angstrom(np.array(numbers), graph.GetConformer().GetPositions())
    config = DynamicsConfig(n_frames=FRAMES, temperature_k=500, stride=200, equilibration_steps=400)
    frames = structures.md(start, config, seed=number, name=f"m{number:03d}", progress=False)
    wanted = structures.bonds(start)
    same = all(np.array_equal(structures.bonds(frame.molecule), wanted) for frame in frames)
    return frames if same else None


def in_order(sampled: dict[str, list[Structure]]) -> list[Structure]:
    """Return all frames: the smallest molecules first, shuffled, frame by frame."""

    def size(name: str) -> int:
        return sum(AOS.get(int(z), 14) for z in sampled[name][0].molecule.numbers)

    names = sorted(sampled, key=lambda name: (size(name), name))
    rng = np.random.default_rng(0)
    ordered = []
    for group in (names[:SMALLEST], names[SMALLEST:]):
        shuffled = [group[k] for k in rng.permutation(len(group))]
        ordered += [sampled[name][frame] for frame in range(FRAMES) for name in shuffled]
    return ordered


if __name__ == "__main__":
    main()
