"""The scaffold of a molecule: its rings and what links them (Bemis and Murcko), by RDKit."""

from __future__ import annotations

from typing import Any

from helmol.errors import InputError


def scaffold(smiles: str) -> str:
    """Return the Murcko scaffold of a SMILES as canonical SMILES, empty for a molecule without rings.

    Raises:
        InputError: RDKit is missing, or the SMILES cannot be read.
    Source: Bemis and Murcko, J. Med. Chem. 39, 2887 (1996).
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem.Scaffolds import MurckoScaffold
    except ImportError as error:
        raise InputError("scaffolds need RDKit: pip install 'helmol[smiles]'") from error
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise InputError(f"SMILES {smiles!r} cannot be read")
    murcko: Any = MurckoScaffold  # its functions carry no types
    return str(murcko.MurckoScaffoldSmiles(mol=molecule))
