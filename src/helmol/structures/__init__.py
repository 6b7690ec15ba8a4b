"""Geometries: read from files, written to files, and sampled.

Sampled by xTB molecular dynamics, along normal modes, as conformers of SMILES, as dimers and complexes,
and as random molecules over most of the periodic table.

Knows: ASE's file formats and others, where files state charge and spin, GFN2-xTB, RDKit (each imported
only when used). Does not know: DFT, stores, torch. Å and the multiplicity 2S+1 of foreign files become
bohr and 2S here.
"""

from helmol.structures.assembly import ComplexesConfig, DimersConfig, complexed, dimers, draw_fragments
from helmol.structures.bonds import bonds, environments
from helmol.structures.conformers import ConformersConfig, conformers, flat_molecule, read_smiles
from helmol.structures.dynamics import DynamicsConfig, md
from helmol.structures.extxyz import extxyz_text
from helmol.structures.files import SUFFIXES, FrameError, each, from_atoms, read, write
from helmol.structures.labelled import Labelled, each_labelled
from helmol.structures.modes import ModesConfig, displaced, normal_modes
from helmol.structures.placement import random_molecule
from helmol.structures.recipe import Composition, RandomConfig, compositions, element_counts
from helmol.structures.structure import Structure
from helmol.structures.xtb import hessian, relax

__all__ = [
    "SUFFIXES",
    "ComplexesConfig",
    "Composition",
    "ConformersConfig",
    "DimersConfig",
    "DynamicsConfig",
    "FrameError",
    "Labelled",
    "ModesConfig",
    "RandomConfig",
    "Structure",
    "bonds",
    "complexed",
    "compositions",
    "conformers",
    "dimers",
    "displaced",
    "draw_fragments",
    "each",
    "each_labelled",
    "element_counts",
    "environments",
    "extxyz_text",
    "flat_molecule",
    "from_atoms",
    "hessian",
    "md",
    "normal_modes",
    "random_molecule",
    "read",
    "read_smiles",
    "relax",
    "write",
]
