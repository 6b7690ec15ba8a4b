"""Atomic-orbital algebra: shells, orders, and the tables between matrix blocks and irreps.

**House order.** Shells stand in PySCF's order; inside a shell m = −l … l of the standard real
spherical harmonics, all signs +: p = (y, z, x), d = (xy, yz, z², xz, x²−y²). Every foreign order
is one entry of :mod:`helmol.basis.orders`.

Knows: angular momenta, Clebsch–Gordan coefficients, index maps. Does not know: PySCF (a ``Mole``
is read by its methods, never imported), torch, files.
"""

from helmol.basis.coupling import coupling, real_spherical_harmonics, wigner_d
from helmol.basis.irreps import IrrepTable, diagonal_table, pair_table
from helmol.basis.orders import MOrder, coefficients_from_house, from_house, house_order, m_order, to_house
from helmol.basis.shells import LETTERS, BasisSet, ElementBasis, Signature, signature_nao

__all__ = [
    "LETTERS",
    "BasisSet",
    "ElementBasis",
    "IrrepTable",
    "MOrder",
    "Signature",
    "coefficients_from_house",
    "coupling",
    "diagonal_table",
    "from_house",
    "house_order",
    "m_order",
    "pair_table",
    "real_spherical_harmonics",
    "signature_nao",
    "to_house",
    "wigner_d",
]
