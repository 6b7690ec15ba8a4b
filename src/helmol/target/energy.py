"""Energies of the elements: what of a total energy the composition alone explains.

``E = Σ_i E_ref(Z_i) + rest``, by least squares over the training set. The rest is what a network learns.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helmol.arrays import Array
from helmol.elements import SYMBOLS
from helmol.errors import DomainError, InputError
from helmol.graph import Batch
from helmol.properties import N_ELEMENTS, composition, element_energies
from helmol.system import Molecule
from helmol.target.parts import Known

log = logging.getLogger("helmol.target")

FLOOR = 1e-6
"""Smallest scale of energies (Eh) and forces (Eh/bohr)."""


class EnergyTarget(Known):
    """Hold the energies of the elements and the units of what is left, float64.

    Args:
        rank: number of compositions in ``span``.

    Attributes:
        per_element: ``[119]`` by atomic number, Eh; zero for elements that were not there.
        span: orthonormal rows ``[rank, 119]`` of the compositions that were there. Energies of other
            compositions cannot be told apart from an error of the element energies.
        scale: root mean square over training molecules of ``rest / √n_atoms``, Eh.
        force_scale: root mean square of the training forces' components, Eh/bohr; 0 if there were none.
    """

    per_element: Tensor
    span: Tensor
    scale: Tensor
    force_scale: Tensor

    def __init__(self, rank: int = 0) -> None:
        super().__init__()
        self.register_buffer("per_element", torch.zeros(N_ELEMENTS, dtype=torch.float64))
        self.register_buffer("span", torch.zeros(rank, N_ELEMENTS, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("force_scale", torch.ones((), dtype=torch.float64))

    def description(self) -> dict[str, Any]:
        """Return what JSON can hold and a new target needs before it loads the numbers."""
        return {"rank": len(self.span)}

    def fit(
        self, molecules: Sequence[Molecule], energies: Sequence[float], forces: Sequence[Array] = ()
    ) -> None:
        """Fit the energies of the elements by least squares.

        Where the compositions do not determine all of them (conformers of one molecule, say), the shortest
        solution is taken and a warning logged; the energies then hold for combinations of the training
        compositions only, and :meth:`check` refuses others.

        Args:
            molecules: training molecules.
            energies: total energies, Eh.
            forces: ``[n_atoms, 3]`` of each, Eh/bohr, if there are any.

        Raises:
            InputError: no molecules, or an energy that is not finite.
        """
        if len(molecules) == 0 or len(molecules) != len(energies):
            raise InputError(
                f"{len(energies)} energies for {len(molecules)} molecules: need one each, and some"
            )
        values = np.asarray(energies, dtype=np.float64)
        if not np.isfinite(values).all():
            wrong = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(f"the energy of training molecule {wrong} is not finite")
        found = element_energies([molecule.numbers for molecule in molecules], values)
        if found.rank < len(found.elements):
            log.warning(
                "%d elements (%s), but the compositions of the training molecules determine only %d "
                "combination%s of their energies: the model will refuse other compositions",
                len(found.elements), ", ".join(SYMBOLS[z] for z in found.elements), found.rank,
                "s" if found.rank > 1 else "",
            )  # fmt: skip
        n_atoms = np.array([molecule.n_atoms for molecule in molecules])
        self.set(
            torch.from_numpy(found.per_element),
            torch.from_numpy(found.span),
            max(float(np.sqrt(np.mean(np.square(found.rest) / n_atoms))), FLOOR),
            _force_scale(forces),
        )

    def set(self, per_element: Tensor, span: Tensor, scale: float, force_scale: float) -> None:
        """Replace all numbers; see the attributes."""
        device = self.per_element.device
        self.per_element, self.span = per_element.to(device), span.to(device)
        self.scale.fill_(scale)
        self.force_scale.fill_(force_scale)

    def energy_of(self, molecule: Molecule) -> float:
        """Return the sum of a molecule's element energies, Eh."""
        return float(self.per_element.cpu().numpy()[molecule.numbers].sum())

    def start(self, batch: Batch) -> Tensor:
        """Return the sums of the element energies of a batch's molecules, ``[B]`` Eh."""
        energies = self.per_element[batch.numbers]
        return energies.new_zeros(len(batch.molecules)).index_add(0, batch.molecule, energies)

    def check(self, molecule: Molecule) -> None:
        """Raise DomainError if the training set does not determine the energies of this composition."""
        counts, span = composition(molecule.numbers), self.span.cpu().numpy()
        if np.linalg.norm(counts - span.T @ (span @ counts)) > 1e-6 * np.linalg.norm(counts):
            raise DomainError(
                f"the energy of {molecule.formula} is not determined: the compositions of the training set "
                "do not span it, so the energies of its elements are unknown (train on more compositions)"
            )


def _force_scale(forces: Sequence[Array]) -> float:
    """Return the root mean square of all components, 0.0 if there are none."""
    if not forces:
        return 0.0
    return max(float(np.sqrt(np.mean(np.square(np.concatenate(list(forces)))))), FLOOR)
