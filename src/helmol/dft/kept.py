"""PySCF's numerical integration, with the values of the basis functions on a grid kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf.dft import gen_grid, numint

from helmol.arrays import Array, IntArray

SHARE_FOR_ORBITALS = 0.35
"""Share of ``max_memory`` that values of the basis functions on the grid may take."""

POINTS = 20 * gen_grid.BLKSIZE
"""Points of a block. Neighbours stand together on PySCF's grids, and few functions reach a small block."""

NEGLIGIBLE = 1e-12
"""Functions that are smaller than this, times the root of the weight, on all points of a block are left out
there: potentials move by less than 1e-11 Eh."""

FEW = 0.75
"""Points of a block are left out where no more than this share of them matters; to copy costs time, too."""

DERIVATIVES = {"LDA": 0, "GGA": 1, "MGGA": 1}
"""Derivatives of the basis functions that the kinds of functionals need."""


@dataclass(frozen=True)
class Block:
    """Hold the basis functions on some points of a grid.

    Attributes:
        start: first point.
        points: those kept of the block, counted from its start.
        functions: those kept, numbers of basis functions.
        values: value and derivatives along x, y, z, ``[1 or 4, n_functions, n_points]``.
        weights: ``[n_points]``.
    """

    start: int
    points: IntArray
    functions: IntArray
    values: Array
    weights: Array


class KeptOrbitals(numint.NumInt):
    """PySCF's numerical integration, with the values of the basis functions on one grid kept.

    At most ``8 · 4 · n_points · n_ao`` bytes for a GGA, less what is negligible (:data:`NEGLIGIBLE`); what
    is beyond the limit is evaluated anew every time. Energy and potential of a density that comes with its
    orbitals are computed from those blocks; everything else is PySCF's. C₆H₈O₃, PBE/def2-SVP, 205,424
    points: the first evaluation takes 0.9 of the CPU time of PySCF's, every further one half of it.

    Args:
        grids: whose values are kept.
        limit_mb: what they may take, MB.
        like: PySCF's object for the functional, whose settings (``omega``, ``define_xc_``) are taken over.
    """

    def __init__(self, grids: Any, *, limit_mb: float, like: Any = None) -> None:
        super().__init__()
        if like is not None:
            self.__dict__.update(vars(like))
        self.grids, self.limit_mb = grids, limit_mb
        self._kept_key: tuple[Any, int] | None = None
        self._kept: dict[int, Block] = {}
        self._room, self._used = np.empty(0), 0

    @property
    def kept_mb(self) -> float:
        """What the values take, MB."""
        return 8e-6 * self._used

    def nr_rks(
        self, mol: Any, grids: Any, xc_code: str, dms: Any, *rest: Any, **other: Any
    ) -> tuple[Any, ...]:
        """Return electrons, energy and potential of a closed shell (PySCF's interface)."""
        if (mine := self._of_kept(mol, grids, xc_code, dms, 1)) is None:
            found: tuple[Any, ...] = super().nr_rks(mol, grids, xc_code, dms, *rest, **other)
            return found
        electrons, energy, potential = mine
        return electrons[0], energy, potential[0]

    def nr_uks(
        self, mol: Any, grids: Any, xc_code: str, dms: Any, *rest: Any, **other: Any
    ) -> tuple[Any, ...]:
        """Return electrons, energy and potential of both spins (PySCF's interface)."""
        if (mine := self._of_kept(mol, grids, xc_code, dms, 2)) is None:
            found: tuple[Any, ...] = super().nr_uks(mol, grids, xc_code, dms, *rest, **other)
            return found
        return mine

    def _of_kept(
        self, mol: Any, grids: Any, xc_code: str, dms: Any, n_spins: int
    ) -> tuple[Array, float, Array] | None:
        """Return :meth:`_integrate` of a density, ``None`` if it is one for PySCF's own way."""
        kind, orbitals = self._xc_type(xc_code), _occupied(dms, n_spins)
        if not self._knows(mol, grids, kind) or orbitals is None:
            return None
        return self._integrate(xc_code, kind, orbitals)

    def block_loop(
        self,
        mol: Any,
        grids: Any,
        nao: int | None = None,
        deriv: int = 0,
        max_memory: float = 2000,
        **other: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield orbital values, mask, weights and coordinates, block by block (PySCF's interface)."""
        if grids.coords is None:
            grids.build(with_non0tab=True)
        values_mb = 8e-6 * _components(deriv) * len(grids.coords) * int(mol.nao)
        mine = grids is self.grids and mol is grids.mol and not other and values_mb <= self.limit_mb
        if not mine or self._kept_key not in (None, (id(grids.coords), deriv)):
            yield from super().block_loop(mol, grids, nao, deriv, max_memory, **other)
            return
        for block in self._blocks(deriv):
            part = slice(block.start, block.start + POINTS)
            weights = grids.weights[part]
            values = np.zeros((len(block.values), int(mol.nao), len(weights)))
            values[:, block.functions[:, None], block.points] = block.values
            # PySCF has the functions last and the points next to each other in memory.
            functions = values.transpose(0, 2, 1)
            yield functions if deriv else functions[0], None, weights, grids.coords[part]

    def _knows(self, mol: Any, grids: Any, kind: str) -> bool:
        """Return whether this grid's values are kept, and the functional needs no others."""
        return grids is self.grids and mol is grids.mol and kind in DERIVATIVES

    def _integrate(self, xc_code: str, kind: str, orbitals: list[Array]) -> tuple[Array, float, Array]:
        """Return electrons ``[n_spins]``, energy and potential ``[n_spins, nao, nao]``.

        Args:
            xc_code: functional.
            kind: ``LDA``, ``GGA`` or ``MGGA``.
            orbitals: occupied ones times the root of their occupation, ``[n, nao]``, one array per spin.
        """
        n_spins, nao = len(orbitals), int(self.grids.mol.nao)
        electrons, energy, half = np.zeros(n_spins), 0.0, np.zeros((n_spins, nao, nao))
        for block in self._blocks(DERIVATIVES[kind]):
            densities = [_density(block.values, mo[:, block.functions], kind) for mo in orbitals]
            argument = densities[0] if n_spins == 1 else tuple(densities)
            per_electron, slope = self.eval_xc_eff(xc_code, argument, deriv=1, xctype=kind, spin=n_spins - 1)[
                :2
            ]
            weighted = (block.weights * slope).reshape(n_spins, -1, len(block.weights))
            for spin, density in enumerate(densities):
                number = block.weights * np.atleast_2d(density)[0]
                electrons[spin] += number.sum()
                energy += float(number @ per_electron)
                half[spin, block.functions[:, None], block.functions] += _half_potential(
                    block.values, weighted[spin], kind
                )
        return electrons, energy, half + half.transpose(0, 2, 1)

    def _blocks(self, deriv: int) -> Iterator[Block]:
        """Yield the blocks of the grid, kept or made."""
        grids = self.grids
        if grids.coords is None or grids.non0tab is None:
            grids.build(with_non0tab=True)
        n_values = _components(deriv) * int(grids.mol.nao) * len(grids.coords)
        if self._kept_key != (id(grids.coords), deriv):
            self._kept_key, self._kept, self._used = (id(grids.coords), deriv), {}, 0
            # One piece, of which what is not used is never touched: many small ones take three times as long.
            try:
                self._room = np.empty(min(n_values, int(self.limit_mb * 1e6 / 8)))
            except MemoryError:
                self._room = np.empty(0)
        buffers = np.empty((2, min(n_values, _components(deriv) * int(grids.mol.nao) * POINTS)))
        for start in range(0, len(grids.coords), POINTS):
            block = self._kept.get(start)
            if block is None:
                block = self._made(start, deriv, *buffers)
                if block.values.base is self._room:
                    self._kept[start] = block
            yield block

    def _made(self, start: int, deriv: int, buffer: Array, spare: Array) -> Block:
        """Evaluate the basis functions on a block of points and leave out what is negligible.

        Args:
            start: first point.
            deriv: order of the derivatives.
            buffer: for the values of all.
            spare: for those that stay, if there is no room to keep them.
        """
        grids = self.grids
        part = slice(start, start + POINTS)
        found = self.eval_ao(
            grids.mol,
            grids.coords[part],
            deriv=deriv,
            non0tab=grids.non0tab[start // gen_grid.BLKSIZE :],
            cutoff=grids.cutoff,
            out=buffer,
        )
        values = np.asarray(found).reshape(-1, *found.shape[-2:]).transpose(0, 2, 1)
        weights = grids.weights[part]
        size = np.abs(values[0])
        size *= np.sqrt(np.abs(weights))
        functions = np.flatnonzero(size.max(axis=1) > NEGLIGIBLE)
        points = np.flatnonzero(size.max(axis=0) > NEGLIGIBLE)
        if len(points) > FEW * len(weights):
            points = np.arange(len(weights))
        else:
            values = values.take(points, axis=2)
        shape = len(values), len(functions), len(points)
        n_values = int(np.prod(shape))
        if self._used + n_values <= len(self._room):
            kept = self._room[self._used : self._used + n_values].reshape(shape)
            self._used += n_values
        else:
            kept = spare[:n_values].reshape(shape)
        for component, target in zip(values, kept, strict=True):
            # The mode only saves a copy: no number is out of range.
            component.take(functions, axis=0, out=target, mode="clip")
        return Block(start, points, functions, kept, weights[points])


def _components(deriv: int) -> int:
    """Return how many values and derivatives up to some order a function has at a point."""
    return (deriv + 1) * (deriv + 2) * (deriv + 3) // 6


def _occupied(dms: Any, n_spins: int) -> list[Array] | None:
    """Return the occupied orbitals of a density times the root of their occupation, ``[n, nao]`` per spin.

    Returns:
        ``None`` if the density does not say of which orbitals it is made.
    """
    coefficients, occupations = getattr(dms, "mo_coeff", None), getattr(dms, "mo_occ", None)
    if coefficients is None or occupations is None or np.ndim(dms) != n_spins + 1:
        return None
    if n_spins == 1:
        coefficients, occupations = [coefficients], [occupations]
    if any(np.ndim(mo) != 2 or np.iscomplexobj(mo) for mo in coefficients):
        return None
    return [
        np.ascontiguousarray((np.asarray(mo)[:, n > 0] * np.sqrt(n[n > 0])).T)
        for mo, n in zip(coefficients, map(np.asarray, occupations), strict=True)
    ]


def _density(values: Array, orbitals: Array, kind: str) -> Array:
    """Return density, gradient and kinetic energy density on the points, as PySCF's functionals take them.

    ``ρ = Σ ψ²``, ``∇ρ = 2 Σ ψ ∇ψ``, ``τ = ½ Σ |∇ψ|²``.

    Returns:
        ``[n_points]`` (LDA), ``[4, n_points]`` (GGA) or ``[5, n_points]`` (meta-GGA).
    """
    on_points = [orbitals @ component for component in values]
    found = [_products(on_points[0], on_points[0])]
    if kind == "LDA":
        return found[0]
    found += [2 * _products(on_points[0], slope) for slope in on_points[1:]]
    if kind == "MGGA":
        found.append(0.5 * np.sum([_products(slope, slope) for slope in on_points[1:]], axis=0))
    return np.array(found)


def _products(first: Array, second: Array) -> Array:
    """Return the products of two sets of functions summed over the functions, ``[n_points]``."""
    return np.asarray(numint._contract_rho(first.T, second.T))


def _half_potential(values: Array, weighted: Array, kind: str) -> Array:
    """Return the matrix whose sum with its transpose is the potential of a block, ``[n, n]``.

    Args:
        values: of the basis functions, ``[1 or 4, n, n_points]``.
        weighted: derivatives of the energy by density, gradient and kinetic energy density times weights.
        kind: of functional.
    """
    weighted = weighted.copy()
    weighted[0] *= 0.5
    n_components = len(values)
    scaled = numint._scale_ao(values.transpose(0, 2, 1), weighted[:n_components])
    half = values[0] @ scaled
    if kind == "MGGA":
        for slope in values[1:]:
            half += slope @ numint._scale_ao(slope.T, 0.25 * weighted[4])
    return np.asarray(half)
