"""Energies without a Fock build, about superposed atoms: of a density, or of a Fock matrix to second order.

The Coulomb energy and exchange-correlation are taken about the spherical atoms of ``minao-lite``, whose
densities and potentials are sums of Gaussians: what is left to integrate is small.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from pyscf import df, gto
from pyscf.dft import libxc
from scipy.special import erf

from helmol.arrays import Array, IntArray
from helmol.basis import from_house
from helmol.dft.atoms import SphericalAtom, exponents
from helmol.dft.densities import superposed_density
from helmol.dft.dispersion import dispersion
from helmol.dft.field import auxiliary_basis
from helmol.dft.fitted_coulomb import FittedCoulomb
from helmol.dft.integrals import house_shells
from helmol.dft.level import LevelConfig
from helmol.dft.lite import atomic_numbers, charge_exponent, charge_shares, superposed_atoms
from helmol.dft.mole import molecule_from_mole
from helmol.dft.xc_field import Points, fit_coefficients, points_of, stand_in, xc_potential
from helmol.errors import InputError

N_RADIAL, N_ANGULAR = 24, 110
"""Points around every atom."""
VOID = 1e-9
"""Density below which points do not count, per bohr³."""


def energy_about_atoms(
    mole: gto.Mole, level: LevelConfig, *, reference: Array, density: Array, fock: Array | None = None
) -> float:
    """Return the energy of a density of a closed shell, or of a Fock matrix to second order, without F[D].

    With ρ₀ the density of the spherical atoms (of an ion less its charge, spread as in ``minao-lite``),
    ``H₀ = T + V + v_H[ρ₀] + u`` the matrix ``minao-lite`` with the fitted potential u in the place of
    v_xc[ρ₀], and ``δ = ρ_D − ρ₀``, the energy of a density is

    ``E[D] = tr H₀D + E_nn − ½(ρ₀|ρ₀) + ∫ (f_xc[ρ_D] − u ρ_D) + ½(δ|δ)``

    with the last term, of neutral and small densities, from an auxiliary basis. To second order in δ, with D₀
    a matrix of ρ₀, and F in the place of what δ makes of the potential, it is

    ``E = tr H₀D + E_nn − ½(ρ₀|ρ₀) + ∫ (f_xc[ρ₀] − u ρ₀) + ½ ∫ (v_xc[ρ₀] − u) δ + ½ tr (F − H₀)(D − D₀)``

    which needs no integrals of more than two basis functions. An error of D enters the first in second order,
    an error ε of F the other in first order, as ``½ tr ε (D[H₀] − D₀)``.

    Args:
        mole: the molecule.
        level: its functional must be one of density and gradient.
        reference: ``minao-lite``, house order, ``[nao, nao]``, Eh.
        density: D, likewise.
        fock: F, whose density D is: the second formula instead of the first.

    Returns:
        Eh.

    Raises:
        InputError: unpaired electrons, a hybrid or another functional whose potential is no function in
            space, or matrices of another shape.
    """
    check_expandable(level)
    nao = int(mole.nao)
    if mole.spin or density.shape != (nao, nao):
        raise InputError(
            f"energies about atoms are of closed shells and densities [{nao}, {nao}]: this one has shape "
            f"{density.shape} and {mole.spin} unpaired electrons"
        )
    shells = house_shells(mole)
    h, d = (from_house(matrix, shells, "pyscf") for matrix in (reference, density))
    empirical, _ = dispersion(molecule_from_mole(mole), level)
    energy = float(np.vdot(h, d)) + superposed_coulomb(mole) + empirical
    xc = stand_in(level.xc)
    if fock is None:
        return energy + xc_energy(mole, xc, d) + change_coulomb(mole, level, d)
    change = d - charged_density(mole)
    second = 0.5 * float(np.vdot(from_house(fock, shells, "pyscf") - h, change))
    return energy + xc_energy(mole, xc, d, first_order=True) + second


def check_expandable(level: LevelConfig) -> None:
    """Refuse functionals that are no functions of density and gradient.

    Raises:
        InputError: a hybrid, a meta-GGA, or one with non-local correlation.
    """
    if stand_in(level.xc) != level.xc:
        raise InputError(
            "energies without a Fock build need a functional of density and gradient such as PBE, not "
            f"{level.xc}"
        )


def charged_density(mole: gto.Mole) -> Array:
    """Return a density matrix of superposed atoms with the electrons of the molecule, PySCF order.

    That of :func:`helmol.dft.densities.superposed_density`; of an ion less the density of its charge, which
    is put onto the basis functions as Gaussians ``g² ∝ exp(−α r²)`` of each atom.
    """
    density = np.asarray(superposed_density(mole))
    if not mole.charge:
        return density
    overlap = mole.intor_symmetric("int1e_ovlp")
    for position, number, share in zip(
        mole.atom_coords(unit="Bohr"), atomic_numbers(mole), charge_shares(mole), strict=True
    ):
        if share:
            spread = gto.fakemol_for_charges(position[None], charge_exponent(number) / 2)
            cross = gto.intor_cross("int1e_ovlp", mole, spread)[:, 0]
            orbital = np.linalg.solve(overlap, cross)
            density = density - mole.charge * share * np.outer(orbital, orbital) / (orbital @ cross)
    return density


def superposed_coulomb(mole: gto.Mole) -> float:
    """Return ``E_nn − ½(ρ₀|ρ₀)`` of superposed atoms, Eh.

    Of Gaussian charges p and q with exponents α and β, ``(p|q) = p q erf(√(αβ/(α+β)) R)/R``.
    """
    centres, atoms = superposed_atoms(mole)
    charges, alpha, at = gaussian_charges(mole)
    nuclei = np.array([float(atom.charge) for atom in atoms])
    energy = 0.0
    for k, centre in enumerate(centres):
        distance = np.linalg.norm(centres - centre, axis=1)
        distance[k] = np.inf
        energy += 0.5 * float(nuclei[k] * np.sum(nuclei / distance))
        mine = at == k
        root = np.sqrt(np.outer(alpha[mine], alpha) / (alpha[mine][:, None] + alpha))
        r = np.linalg.norm(centres[at] - centre, axis=1)
        apart = r > 0
        kernel = 2 * root / np.sqrt(np.pi)
        kernel[:, apart] = erf(root[:, apart] * r[apart]) / r[apart]
        energy -= 0.5 * float(charges[mine] @ kernel @ charges)
    return energy


def gaussian_charges(mole: gto.Mole) -> tuple[Array, Array, IntArray]:
    """Return ρ₀ as Gaussians: electrons, exponents (per bohr²), and of which atom each is; no ghosts."""
    _, atoms = superposed_atoms(mole)
    numbers = np.array(atomic_numbers(mole))
    shares = charge_shares(mole)[numbers > 0]
    charges, alpha, owner = [], [], []
    for k, (atom, number, share) in enumerate(zip(atoms, numbers[numbers > 0].tolist(), shares, strict=True)):
        ladder, density = exponents(len(atom.density)), np.array(atom.density)
        used = np.flatnonzero(density)
        charges += [density[used] * (np.pi / ladder[used]) ** 1.5, np.array([-mole.charge * share])]
        alpha += [ladder[used], np.array([charge_exponent(number)])]
        owner += [k] * (len(used) + 1)
    return np.concatenate(charges), np.concatenate(alpha), np.array(owner)


def change_coulomb(mole: gto.Mole, level: LevelConfig, density: Array) -> float:
    """Return ``½(δ|δ)`` of the change ``δ = ρ_D − ρ₀``, fitted with an auxiliary basis, Eh.

    It is too small by the square of what δ has beyond the auxiliary basis.

    Args:
        mole: the molecule.
        level: chooses the auxiliary basis.
        density: D, PySCF order.
    """
    functions = df.make_auxmol(mole, auxiliary_basis(mole, level))
    centres, _ = superposed_atoms(mole)
    charges, alpha, at = gaussian_charges(mole)
    coulomb = FittedCoulomb(mole, functions, max_memory=0)
    change = coulomb.fit(density) - coulomb.solve(_potentials(functions, centres[at], alpha) @ charges)
    return 0.5 * coulomb.energy(change)


def _potentials(auxiliary: gto.Mole, centres: Array, alpha: Array) -> Array:
    """Return ``(P|g)`` of auxiliary functions and Gaussians of charge one, ``[n_aux, n]``."""
    found = np.empty((int(auxiliary.nao), len(alpha)))
    for exponent in np.unique(alpha):
        which = np.flatnonzero(alpha == exponent)
        spread = gto.fakemol_for_charges(centres[which], float(exponent))
        found[:, which] = gto.intor_cross("int2c2e_sph", auxiliary, spread)
    return found


def xc_energy(mole: gto.Mole, xc: str, density: Array, *, first_order: bool = False) -> float:
    """Return ``∫ (f_xc[ρ_D] − u ρ_D)``, or ``∫ (f_xc[ρ₀] − u ρ₀ + ½ (v_xc[ρ₀] − u) δ)``, Eh.

    A sum over atoms of integrals on points around them (:func:`helmol.dft.xc_field.points_of`), with weights
    ``a_A / Σ_B a_B``, ``a_B = √ρ_B / r_B⁴``. The integrands are small where they vary: u has the steep part
    of each atom's potential.

    Args:
        mole: the molecule.
        xc: a functional of density and gradient.
        density: D, PySCF order.
        first_order: the second of the two.
    """
    centres, atoms = superposed_atoms(mole)
    coefficients = fit_coefficients(Points.of(centres, atoms, xc), xc)
    points = Points.of(centres, atoms, xc, n_radial=N_RADIAL, n_angular=N_ANGULAR)
    gradient = libxc.xc_type(xc) != "LDA"
    energy = 0.0
    for k, atom in enumerate(atoms):
        columns, values, functions = points.evaluate(k)
        places, own = _points_and_density(atom)
        there = (values[0] > VOID) & (values[11] > 0) & (own > 0)
        values, positions = values[:, there], places[there] + centres[k]
        u = values[10] + coefficients[columns] @ functions[:, there] / values[11]
        weights = values[11] ** 2 / own[there]
        if first_order:
            rows = values[:4]
            made = _density_at(mole, positions, density, gradient=False)[0]
            beyond = 0.5 * (xc_potential(xc, values[0], values[1:4], values[4:10]) - u) * (made - rows[0])
        else:
            rows, beyond = _density_at(mole, positions, density, gradient=gradient), 0.0
        each = np.asarray(libxc.eval_xc(xc, rows if gradient else rows[0], deriv=0)[0])
        energy += float(weights @ ((each - u) * rows[0] + beyond))
    return energy


def _density_at(mole: gto.Mole, points: Array, density: Array, *, gradient: bool) -> Array:
    """Return a density at points, and its gradient if wanted, ``[1 or 4, n]``."""
    values = mole.eval_gto("GTOval_sph_deriv1" if gradient else "GTOval_sph", points)
    values = values if gradient else values[None]
    half = values[0] @ density
    found = np.einsum("xgi,gi->xg", values, half)
    found[1:] *= 2
    return np.asarray(found)


@lru_cache(maxsize=256)
def _points_and_density(atom: SphericalAtom) -> tuple[Array, Array]:
    """Return the points of an atom at the origin, and its density there."""
    places, _ = points_of(atom, N_RADIAL, N_ANGULAR)
    return places, atom.density_at(np.linalg.norm(places, axis=1))
