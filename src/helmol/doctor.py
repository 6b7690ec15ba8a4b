"""Self-tests on the user's machine: does this torch, this PySCF, this processor give right numbers?

Knows: small random molecules and networks. Does not know: files, data, a user's model. Each test is
a function that returns a :class:`Check` and never raises; none takes more than a few seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helmol import blas
from helmol.arrays import Array
from helmol.basis import BasisSet, ElementBasis, from_house, to_house, wigner_d
from helmol.system import LevelOfTheory, Molecule

if TYPE_CHECKING:
    from helmol.model import Model


PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "h5py",
    "pyscf",
    "ase",
    "tblite",
    "safetensors",
    "pydantic",
    "matplotlib",
)
ROTATION_TOLERANCE = {"float64": 1e-11, "float32": 1e-5}
"""Largest deviation from F(Rr) = D F(r) Dᵀ, relative to the largest element of F."""
OVERLAP_TOLERANCE = 1e-9
"""The same for PySCF's overlap matrix, absolute."""
FIT_FACTOR, FIT_STEPS = 5.0, 60
"""By what the loss of the tiny fit must fall, and in how many steps."""

_WATER = Molecule.from_angstrom([8, 1, 1], [[0.0, 0.0, 0.1], [0.0, 0.78, -0.5], [0.1, -0.74, -0.52]])


@dataclass(frozen=True)
class Check:
    """Say how one self-test went.

    Attributes:
        name: of the test.
        passed: ``None`` where a library is missing, so that the test could not run.
        detail: what was measured, and what was wanted.
        seconds: how long it took.
    """

    name: str
    passed: bool | None
    detail: str
    seconds: float = 0.0


def versions() -> dict[str, str]:
    """Return Python's version and those of the libraries that matter, or ``"not installed"``."""
    found = {"helmol": importlib.metadata.version("helmol"), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Return what the computations will run on."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name(0) if device == "cuda" else platform.machine(),
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        **{f"blas_{name}": kernels for name, kernels in blas_kernels().items()},
    }


def blas_kernels() -> dict[str, str]:
    """Return the kernels of every OpenBLAS in use, by package."""
    # PySCF loads its own; it is not there where only predictions from a store are made.
    if importlib.util.find_spec("pyscf") is not None:
        import helmol.dft  # noqa: F401
    return blas.kernels_in_use()


def blas_advice(kernels: Mapping[str, str]) -> str | None:
    """Return what to set so that PySCF's OpenBLAS uses better kernels, ``None`` if nothing.

    helmol chooses them where it is imported before PySCF; a script may do the opposite.
    """
    flags = blas.processor_flags()
    if (now := kernels.get("pyscf")) is not None:
        if (wanted := blas.better(now, environment={}, flags=flags)) is not None:
            return f"PySCF's OpenBLAS uses kernels of {now}: export {blas.VARIABLE}={wanted}"
        alone = blas.load_pyscf_blas().alone
        if blas.better(alone, environment=os.environ, flags=flags) is not None:
            return (
                f"helmol gave PySCF's OpenBLAS the kernels of {now} instead of {alone}; for scripts that "
                f"import PySCF before helmol: export {blas.VARIABLE}={now}"
            )
    return None


def self_tests() -> list[Check]:
    """Run all self-tests, one after the other."""
    return [
        _timed("network equivariance, float64", lambda: network_equivariance("float64")),
        _timed("network equivariance, float32", lambda: network_equivariance("float32")),
        _timed("PySCF orbital order there and back", orbital_order),
        _timed("tiny fit", tiny_fit),
    ]


def network_equivariance(precision: str) -> tuple[bool, str]:
    """Rotate a molecule at random and compare the network's F with D F Dᵀ."""
    import torch

    from helmol.model import predict_fock

    model = random_network(getattr(torch, precision), seed=1)
    rotation = random_rotation(np.random.default_rng(2))
    fock, turned = (
        predict_fock(model, [molecule], [{}])[0] for molecule in (_WATER, _rotated(_WATER, rotation))
    )
    shells = model.domain.basis.shells(_WATER.numbers)
    error = float(np.abs(turned - rotate_matrix(fock, rotation, shells)).max() / np.abs(fock).max())
    wanted = ROTATION_TOLERANCE[precision]
    return error < wanted, f"largest relative deviation {error:.1e} (must be below {wanted:.0e})"


def orbital_order() -> tuple[bool, str]:
    """Bring PySCF's overlap to house order and back, and test S(Rr) = D S(r) Dᵀ with f functions."""
    from helmol import dft

    level = dft.LevelConfig(basis="def2-tzvp")
    rotation = random_rotation(np.random.default_rng(3))
    mole, turned = (dft.build_mole(molecule, level) for molecule in (_WATER, _rotated(_WATER, rotation)))
    shells, overlap = dft.house_shells(mole), mole.intor("int1e_ovlp")
    same = bool((from_house(to_house(overlap, shells, "pyscf"), shells, "pyscf") == overlap).all())
    expected = rotate_matrix(to_house(overlap, shells, "pyscf"), rotation, shells)
    error = float(np.abs(to_house(turned.intor("int1e_ovlp"), shells, "pyscf") - expected).max())
    bits = "every bit equal" if same else "NOT EQUAL"
    return (
        same and error < OVERLAP_TOLERANCE,
        f"there and back {bits}; S(Rr) = D S Dᵀ to {error:.1e} (must be below {OVERLAP_TOLERANCE:.0e})",
    )


def tiny_fit() -> tuple[bool, str]:
    """Fit a nano network to four matrices that another random network has made."""
    import torch

    from helmol.graph import collate
    from helmol.model import fit_statistics, hamiltonian_loss, predict_fock

    rng = np.random.default_rng(4)
    molecules = [
        Molecule(_WATER.numbers, _WATER.positions + rng.normal(scale=0.15, size=_WATER.positions.shape))
        for _ in range(4)
    ]
    matrices = predict_fock(random_network(torch.float64, seed=5), molecules, [{}] * 4)
    student = random_network(torch.float32, seed=6, fitted=False)
    items = [student.prepare(*pair) for pair in zip(molecules, matrices, strict=True)]
    batch = collate(fit_statistics(student, items))
    optimizer = torch.optim.Adam(student.parameters(), lr=5e-3)
    losses = []
    for _ in range(FIT_STEPS):
        optimizer.zero_grad()
        loss = hamiltonian_loss(student(batch).fock, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    factor = losses[0] / losses[-1]
    return (
        factor > FIT_FACTOR,
        f"loss {losses[0]:.3g} -> {losses[-1]:.3g} in {FIT_STEPS} steps, "
        f"a factor {factor:.1f} (must be above {FIT_FACTOR:.0f})",
    )


def random_network(dtype: Any, *, seed: int, fitted: bool = True) -> Model:
    """Return a nano network for water in a made-up split-valence basis, with random weights."""
    from helmol.model import MODEL_PRESETS, build, fit_statistics
    from helmol.target import Domain

    elements = {1: ElementBasis((0, 0, 1), 0, "h"), 8: ElementBasis((0, 0, 0, 1, 1, 2), 0, "o")}
    level = LevelOfTheory("rks", "pbe", "1*101 + 1*130", "made-up", None, 3, False, 1e-10, "none")
    domain = Domain(level, BasisSet("made-up", elements), "fock", (0,), (0,))
    model = build(MODEL_PRESETS["nano"], domain, seed=seed, dtype=dtype)
    if fitted:
        rng = np.random.default_rng(seed)
        matrix = rng.normal(size=(int(domain.basis.offsets(_WATER.numbers)[-1]),) * 2)
        fit_statistics(model, [model.prepare(_WATER, matrix + matrix.T)])
    return model


def random_rotation(rng: np.random.Generator) -> Array:
    """Return a random proper rotation matrix."""
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(matrix * np.sign(np.linalg.det(matrix)), dtype=np.float64)


def rotate_matrix(matrix: Array, rotation: Array, shells: list[int]) -> Array:
    """Return D M Dᵀ for an AO matrix in house order."""
    result, start = matrix.copy(), 0
    for l in shells:
        span = slice(start, start + 2 * l + 1)
        turn = wigner_d(l, rotation)
        result[span] = turn @ result[span]
        result[:, span] = result[:, span] @ turn.T
        start += 2 * l + 1
    return result


def _rotated(molecule: Molecule, rotation: Array) -> Molecule:
    """Return the molecule turned about the origin."""
    return Molecule(molecule.numbers, molecule.positions @ rotation.T, molecule.charge, molecule.spin)


def _timed(name: str, test: Callable[[], tuple[bool, str]]) -> Check:
    """Run one test; a missing library is 'not available', any other error a failure."""
    start = time.perf_counter()
    try:
        passed, detail = test()
    except ModuleNotFoundError as error:
        return Check(name, None, f"not available: {error.name} is not installed")
    except Exception as error:
        passed, detail = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Check(name, passed, detail, time.perf_counter() - start)
