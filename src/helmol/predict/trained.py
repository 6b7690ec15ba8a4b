"""Load a trained model and ask it about molecules."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from helmol import structures
from helmol.arrays import Array
from helmol.basis import BasisSet
from helmol.damage import one_line
from helmol.devices import resolve_device
from helmol.errors import ConfigError, DomainError, HelmolError, InputError
from helmol.hub import ENERGY_FILE
from helmol.predict.matrix_energy import MatrixEnergy, Reading, Way, read_state
from helmol.predict.prediction import Prediction, dft_or, make_prediction
from helmol.properties import electronic_state
from helmol.repeats import in_one_call
from helmol.skipped import FAULTS
from helmol.system import Molecule, Sample

if TYPE_CHECKING:
    from helmol.model import Model, PredictedEnergy
    from helmol.target import Domain

log = logging.getLogger("helmol.predict")

ATOMS = "minao-lite"
"""Reference about whose atoms energies are read."""


@dataclass(frozen=True)
class _Query:
    """One molecule with the integrals that a prediction needs, house order."""

    id: str
    molecule: Molecule
    overlap: Array
    dipole_integrals: Array | None = None
    references: Mapping[str, Array] = field(default_factory=dict)
    mole: Any = None


class TrainedModel:
    """Predict Fock matrices, orbitals and properties with a trained network.

    Attributes:
        model: the torch module.
        domain: elements, basis, functional, charges and spins it has learnt.
        matrix_energy: how energies follow from its Fock matrices, if that was fitted.
    """

    def __init__(self, model: Model, matrix_energy: MatrixEnergy | None = None) -> None:
        self.model, self.matrix_energy = model, matrix_energy
        self._checked_elements: set[frozenset[int]] = set()

    def __repr__(self) -> str:
        return f"TrainedModel({self.model.summary})"

    @property
    def domain(self) -> Domain:
        """What the model has learnt; anything else is refused."""
        return self.model.domain

    @property
    def needed_references(self) -> tuple[str, ...]:
        """Names of the cheap Fock matrices that a prediction takes."""
        return self.model.needed_references

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what decides predictions: all that was learnt, domain, precision."""
        from helmol.model.artifact import model_tensors

        digest = hashlib.sha256(json.dumps(self.domain.to_json(), sort_keys=True).encode())
        digest.update(" ".join(self.model.config.inputs).encode())
        for name, tensor in sorted(model_tensors(self.model).items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        if self.model.precision != "fp32":
            digest.update(self.model.precision.encode())
        return digest.hexdigest()[:16]

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: str = "fp32") -> TrainedModel:
        """Load a run folder (its best checkpoint), a model folder, or a model that comes with helmol.

        Args:
            path: of the folder, or a name that ``helmol models`` shows.
            device: ``auto``, ``cpu``, ``cuda``.
            precision: of matrix products: fp32, tf32, tf32x3, bf16x3 or bf16; the reduced ones gain time on
                CUDA only.

        Raises:
            InputError: there is no model at ``path``.
            ConfigError: no such precision.
        """
        from helmol.model import find_model, load_model

        folder = find_model(path)
        found = cls(load_model(folder, resolve_device(device)), MatrixEnergy.load(folder))
        if found.matrix_energy is not None and found.matrix_energy.model != found.fingerprint:
            raise InputError(
                f"{folder / ENERGY_FILE} is of another model than the one beside it: fit it again"
            )
        return cls(found.model.set_precision(precision), found.matrix_energy)

    @overload
    def predict(
        self, what: Sequence[Any], *, residual: bool = ..., max_edges: int = ...
    ) -> list[Prediction]: ...
    @overload
    def predict(self, what: Any, *, residual: bool = ..., max_edges: int = ...) -> Prediction: ...
    @in_one_call()
    def predict(
        self, what: Any, *, residual: bool = False, max_edges: int = 20000
    ) -> Prediction | list[Prediction]:
        """Predict one molecule or a list of them (batched).

        Args:
            what: a :class:`Molecule`, a ``pyscf.gto.Mole``, ``ase.Atoms``, a labelled
                :class:`Sample`, or a list of these. Of ``ase.Atoms``, ``info["charge"]`` is the
                charge (default 0) and ``info["spin"]`` the **multiplicity** 2S+1 as ASE and
                fairchem write it (default 1); helmol's own ``spin`` is 2S. A ``Mole`` must have the
                model's basis and the result is in its own AO order; the others get a ``Mole`` of
                the model's basis.
            residual: whether to build one Fock matrix from the predicted density and report
                ``‖FDS − SDF‖`` and how many electrons the first SCF step moves; costs as much as one SCF
                cycle.
            max_edges: atom pairs per batch.

        Raises:
            DomainError: an element, basis, charge or spin that the model has not learnt.
            InputError: an input of another kind, or an overlap that cannot be had.
        """
        several = isinstance(what, (list, tuple))
        queries = [self._query(item, k) for k, item in enumerate(what if several else [what])]
        predictions = []
        for found in self._predict(queries, residual=residual, max_edges=max_edges):
            if isinstance(found, HelmolError):
                raise found
            predictions.append(found)
        return predictions if several else predictions[0]

    @in_one_call()
    def predict_each(
        self, what: Sequence[Any], *, residual: bool = False, max_edges: int = 20000
    ) -> list[Prediction | HelmolError]:
        """Predict a list of molecules of which some may not be predictable: those give their error.

        Args:
            what: as for :meth:`predict`.
            residual: likewise.
            max_edges: likewise.

        Returns:
            For each molecule its prediction, the same as without the faulty ones, or what :meth:`predict`
            would raise.
        """
        found: dict[int, Prediction | HelmolError] = {}
        queries: dict[int, _Query] = {}
        for number, item in enumerate(what):
            try:
                queries[number] = self._query(item, number)
            except FAULTS as error:
                found[number] = _named(error)
        results = self._predict(list(queries.values()), residual=residual, max_edges=max_edges)
        found |= dict(zip(queries, results, strict=True))
        return [found[number] for number in range(len(what))]

    @property
    def network(self) -> Model:
        """The module, by its name of helmol 0.1."""
        warnings.warn("TrainedModel.network is called TrainedModel.model", DeprecationWarning, stacklevel=2)
        return self.model

    @property
    def has_fock(self) -> bool:
        """Whether the model predicts Fock matrices."""
        return "fock" in self.model.heads

    @property
    def has_energy(self) -> bool:
        """Whether the model predicts energies, by a head or from its Fock matrices."""
        return "energy" in self.model.heads or self.matrix_energy is not None

    @property
    def has_forces(self) -> bool:
        """Whether the model predicts forces; a head that was never trained has none but zeros."""
        return "energy" in self.model.heads and self.model.energy_head.trained

    def check_energy(self, molecule: Molecule) -> None:
        """Raise DomainError if the model has not learnt the energy of such a molecule."""
        self.domain.check(molecule)
        if self.matrix_energy is not None:
            self.matrix_energy.check(molecule)
        else:
            self.model.energy_target.check(molecule)

    @overload
    def energies(
        self, what: Sequence[Any], *, forces: bool = ..., max_edges: int = ...
    ) -> list[PredictedEnergy]: ...
    @overload
    def energies(self, what: Any, *, forces: bool = ..., max_edges: int = ...) -> PredictedEnergy: ...
    def energies(
        self, what: Any, *, forces: bool = True, max_edges: int = 20_000
    ) -> PredictedEnergy | list[PredictedEnergy]:
        """Predict energy (Eh) and forces (Eh/bohr) of one molecule, or of a list of them (batched).

        Args:
            what: as for :meth:`predict`; a ``Mole`` may have any basis, because none is needed, but where
                energies are read from Fock matrices.
            forces: whether to compute forces.
            max_edges: atom pairs per batch.

        Returns:
            A :class:`helmol.model.PredictedEnergy`, or a list of them.

        Raises:
            ConfigError: the model has no energy head.
            DomainError: an element, composition, charge or spin that the model has not learnt, or forces of
                a model whose head is still that of a new network, or whose energies are read from matrices.
            InputError: an input of another kind.
        """
        from helmol.model import predict_energies

        several = isinstance(what, (list, tuple))
        items = list(what) if several else [what]
        if self.matrix_energy is not None:
            read = self._energies_of_matrices(self.matrix_energy, items, forces=forces, max_edges=max_edges)
            return read if several else read[0]
        molecules = [_molecule_of(item) for item in items]
        if not self.has_energy:
            raise ConfigError(
                "this model has no energy head: it predicts Fock matrices only ('helmol energies' lets it "
                "read energies from them)"
            )
        if forces and not self.has_forces:
            raise DomainError("the forces of this model were not trained: ask for energies only")
        found = predict_energies(self.model, molecules, forces=forces, max_edges=max_edges)
        return found if several else found[0]

    def _energies_of_matrices(
        self, fitted: MatrixEnergy, items: Sequence[Any], *, forces: bool, max_edges: int
    ) -> list[PredictedEnergy]:
        """Predict matrices and read energies from them."""
        from helmol.model import PredictedEnergy

        if forces:
            raise DomainError(
                "energies that are read from Fock matrices have no forces: ask for energies only "
                "(forces=False), or for those of DFT (helmol.ase.HelmolDFT)"
            )
        for item in items:
            fitted.check(_molecule_of(item))
        read = self.readings(items, fitted.way, max_edges=max_edges)
        return [PredictedEnergy(fitted.energy(one), None) for one in read]

    def readings(self, what: Sequence[Any], way: Way, *, max_edges: int = 20_000) -> list[Reading]:
        """Predict matrices, and read what :class:`helmol.predict.MatrixEnergy` makes energies of.

        Args:
            what: as for :meth:`predict`, a list.
            way: ``density`` or ``matrix``.
            max_edges: atom pairs per batch.

        Raises:
            DomainError: a molecule that the model has not learnt.
            InputError: PySCF is missing, or the level's energies cannot be read without a Fock build.
            ConfigError: the model predicts no Fock matrices.
        """
        from helmol.model import predict_fock

        dft = dft_or("energies of Fock matrices need PySCF for integrals: pip install pyscf")
        level = dft.level_from(self.domain.level)
        dft.check_expandable(level)
        queries = [self._query(item, k) for k, item in enumerate(what)]
        known = [{**query.references, "overlap": query.overlap} for query in queries]
        matrices = predict_fock(self.model, [q.molecule for q in queries], known, max_edges=max_edges)
        found = []
        for query, fock in zip(queries, matrices, strict=True):
            state = electronic_state(fock, query.overlap, query.molecule, self.domain.basis)
            mole = dft.build_mole(query.molecule, level) if query.mole is None else query.mole
            atoms = query.references.get(ATOMS)
            energy = dft.energy_about_atoms(
                mole,
                level,
                reference=dft.reference_fock(mole, level, ATOMS) if atoms is None else atoms,
                density=state.density,
                fock=fock if way == "matrix" else None,
            )
            found.append(read_state(state, self.domain.basis, energy))
        return found

    def in_precision(self, dtype: str) -> TrainedModel:
        """Return a copy that computes in ``"float32"`` or ``"float64"``, with products of that precision."""
        import torch

        model = copy.deepcopy(self.model).to(getattr(torch, dtype)).set_precision("fp32")
        return TrainedModel(model, self.matrix_energy)

    def _predict(
        self, queries: Sequence[_Query], *, residual: bool, max_edges: int
    ) -> list[Prediction | HelmolError]:
        """Run the model on all together and derive the properties of each."""
        from helmol.model import predict_fock

        if not queries:
            return []
        matrices = predict_fock(
            self.model,
            [query.molecule for query in queries],
            [{**query.references, "overlap": query.overlap} for query in queries],
            max_edges=max_edges,
        )
        return [
            self._derived(query, matrix, residual=residual)
            for query, matrix in zip(queries, matrices, strict=True)
        ]

    def _derived(self, query: _Query, matrix: Array, *, residual: bool) -> Prediction | HelmolError:
        """Return what follows from a predicted matrix, or why nothing does."""
        try:
            if not np.isfinite(matrix).all():
                raise DomainError("the predicted Fock matrix is not finite")
            prediction = make_prediction(
                matrix,
                query.molecule,
                basis=self.domain.basis,
                overlap=query.overlap,
                dipole_integrals=query.dipole_integrals,
                level=self.domain.level,
                id=query.id,
            )
            if pairs := self.domain.new_pairs(query.molecule):
                prediction = replace(prediction, new_pairs=pairs)
            return self._checked(prediction, query) if residual else prediction
        except FAULTS as error:
            return _named(error)

    def _query(self, item: Any, number: int) -> _Query:
        """Turn any accepted input into a molecule within the domain, with its integrals."""
        name = f"{number:06d}"
        if isinstance(item, Sample):
            return self._sample_query(item)
        if hasattr(item, "molecule"):
            name = str(getattr(item, "id", name))
        return self._mole_query(_molecule_of(item), item if _is_mole(item) else None, name)

    def _mole_query(self, molecule: Molecule, mole: Any, name: str) -> _Query:
        """Make the integrals of a bare molecule with PySCF, in the model's basis."""
        self.domain.check(molecule)
        dft = dft_or(
            "a prediction from a geometry needs PySCF for the overlap: install pyscf, or predict from a store"
        )
        level = dft.level_from(self.domain.level)
        if mole is not None:
            self._check_basis(mole, level)
        else:
            mole, elements = dft.build_mole(molecule, level), frozenset(molecule.numbers.tolist())
            if elements not in self._checked_elements:
                self._check_basis(mole, level)
                self._checked_elements.add(elements)
        references = dft.reference_focks(mole, level, self.needed_references)
        return _Query(name, molecule, dft.overlap(mole), dft.dipole_integrals(mole), references, mole)

    def _check_basis(self, mole: Any, level: Any) -> None:
        """Refuse a ``Mole`` with other functions than the model's."""
        from helmol import dft

        try:
            self.domain.check_basis(BasisSet.from_mole(mole, self.domain.basis.name))
        except DomainError as error:
            if (difference := dft.other_functions(mole, level)) is None:
                raise
            raise DomainError(f"the gto.Mole is not in the model's basis: {difference}") from error

    def _sample_query(self, sample: Sample) -> _Query:
        """Take the integrals that a sample carries; make the missing ones if PySCF is there."""
        self.domain.check(sample.molecule)
        matrices = sample.matrices
        complete = all(name in matrices.references for name in self.needed_references)
        try:
            from helmol import dft
        except ImportError:
            if matrices.overlap is None or not complete:
                raise InputError(
                    f"sample {sample.id!r} lacks the overlap or a reference of {self.domain.target!r}, "
                    "and PySCF is not installed to make them"
                ) from None
            return _Query(sample.id, sample.molecule, matrices.overlap, None, matrices.references)
        if not complete or matrices.overlap is None:
            return self._mole_query(sample.molecule, None, sample.id)
        mole = dft.build_mole(sample.molecule, dft.level_from(self.domain.level))
        integrals = dft.dipole_integrals(mole)
        return _Query(sample.id, sample.molecule, matrices.overlap, integrals, matrices.references, mole)

    def _checked(self, prediction: Prediction, query: _Query) -> Prediction:
        """Build F from the predicted density and return the prediction with how far it is from the end."""
        from helmol import dft, properties

        if query.mole is None:
            raise InputError("the residual needs PySCF for a Fock build: install pyscf, or leave it out")
        field_of = dft.mean_field(query.mole, dft.level_from(self.domain.level))
        fock = np.asarray(field_of.get_fock(dm=prediction.density))
        density, overlap = prediction.density, prediction.overlap
        mo_energy, mo_coeff = properties.orbitals(fock, overlap)
        occupied = properties.occupations(
            mo_energy, round(float(prediction.mo_occ.sum())), spin=prediction.molecule.spin
        )
        after = properties.density(mo_coeff, occupied)
        return replace(
            prediction,
            residual=properties.residual(fock, density, overlap),
            moved=properties.electrons_moved(density, after, overlap),
        )


def _named(error: BaseException) -> HelmolError:
    """Return an error of one molecule as one of helmol's own."""
    if isinstance(error, HelmolError):
        return error
    own = InputError(f"{type(error).__name__}: {one_line(error)}")
    own.__cause__ = error
    return own


def _is_mole(item: Any) -> bool:
    """Return whether something is a ``pyscf.gto.Mole``, without importing PySCF."""
    return hasattr(item, "intor") and hasattr(item, "nbas")


def _molecule_of(item: Any) -> Molecule:
    """Return the molecule of any accepted input.

    Raises:
        InputError: an input of another kind.
    """
    inner = getattr(item, "molecule", item)
    if isinstance(inner, Molecule):
        return inner
    if hasattr(item, "get_atomic_numbers"):
        return structures.from_atoms(item)
    if _is_mole(item):
        from helmol import dft

        return dft.molecule_from_mole(item)
    raise InputError(
        f"cannot predict a {type(item).__name__}: expected a pyscf.gto.Mole, ase.Atoms, "
        "helmol Molecule or Sample, or a list of them"
    )
