"""The GPU is chosen where it should be, and nothing of it leaves the room; no GPU is needed for that."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pyscf import dft as pyscf_dft

from helmol import dft
from helmol.dft import LevelConfig, gpu
from helmol.errors import InputError
from helmol.system import Molecule

WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0.1, -0.76, 0.59]])
LEVEL = LevelConfig(grid_level=1)


class Far:
    """An array in the memory of a GPU: NumPy cannot read it."""

    def __init__(self, array: Any) -> None:
        self._array = np.array(array)

    def __array__(self, *_: Any, **__: Any) -> None:
        raise TypeError("implicit conversion to a NumPy array is not allowed")


def near(value: Any) -> Any:
    return value._array if isinstance(value, Far) else value


def far(value: Any) -> Any:
    return Far(value) if isinstance(value, np.ndarray) else value


class FakeField:
    """PySCF's mean field behind the interface of gpu4pyscf; like that, it ends without a plain step."""

    def __init__(self, mf: Any, shift: float) -> None:
        self._mf, self._shift = mf, shift
        self.converged = False
        self.mo_energy = self.mo_coeff = self.mo_occ = None

    def kernel(self) -> float:
        energy = self._mf.kernel()
        self.converged = self._mf.converged
        mf = self._mf
        self.mo_energy, self.mo_coeff, self.mo_occ = map(far, (mf.mo_energy + 1e-3, mf.mo_coeff, mf.mo_occ))
        return energy

    def make_rdm1(self) -> Far:
        # The density of PySCF carries orbitals, which get_veff may use.
        return Far(self._mf.make_rdm1(near(self.mo_coeff), near(self.mo_occ)))

    def get_fock(self, h1e: None = None, s1e: None = None, vhf: Any = None, dm: Any = None) -> Far:
        dm = self.make_rdm1() if dm is None else dm
        assert isinstance(dm, Far)
        return Far(self._mf.get_fock(vhf=vhf, dm=near(dm)) + self._shift)

    def get_veff(self, mol: Any, dm: Far) -> Any:
        return self._mf.get_veff(mol, near(dm))

    def energy_tot(self, dm: Far, h1e: None, vhf: Any) -> Any:
        return far(np.asarray(self._mf.energy_tot(near(dm), h1e, vhf)))

    def eig(self, fock: Far, overlap: Far) -> tuple[Far, Far]:
        return tuple(map(Far, self._mf.eig(near(fock), near(overlap))))

    def get_occ(self, mo_energy: Far, mo_coeff: Far) -> Far:
        return Far(self._mf.get_occ(near(mo_energy), near(mo_coeff)))

    def get_ovlp(self) -> Far:
        return Far(self._mf.get_ovlp())

    def nuc_grad_method(self) -> Any:
        gradient = self._mf.nuc_grad_method()
        return SimpleNamespace(verbose=0, kernel=lambda: Far(gradient.kernel()))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A CuPy and a gpu4pyscf of its own; ``n_gpus`` and ``shift`` of its Fock matrices can be set."""
    state = SimpleNamespace(n_gpus=1, shift=0.0)
    runtime = SimpleNamespace(getDeviceCount=lambda: state.n_gpus)
    cupy = SimpleNamespace(asarray=Far, asnumpy=near, cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "gpu4pyscf", SimpleNamespace())
    for kind in (pyscf_dft.rks.RKS, pyscf_dft.uks.UKS):
        monkeypatch.setattr(kind, "to_gpu", lambda self: FakeField(self.copy(), state.shift))
    _forget()
    yield state
    _forget()


def _forget() -> None:
    gpu.gpu_obstacle.cache_clear()
    gpu.gpu_difference.cache_clear()


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    _forget()
    yield
    _forget()


@pytest.mark.parametrize("method", ["rks", "uks"])
def test_labels_of_a_gpu_are_those_of_pyscf_and_numpy_arrays(installed: SimpleNamespace, method: str) -> None:
    level = LEVEL.model_copy(update={"method": method, "conv_tol": 1e-13})
    options = {"forces": True, "references": ("minao", "sap"), "density": True}
    there, _ = dft.run(WATER, level, id="w", engine="gpu", **options)
    here, _ = dft.run(WATER, level, id="w", **options)
    assert there.provenance["engine"] == "gpu4pyscf"
    assert "engine" not in here.provenance
    assert abs(there.energy - here.energy) < 1e-9
    assert np.abs(there.matrices.fock - here.matrices.fock).max() < 1e-6
    assert np.abs(there.matrices.density - here.matrices.density).max() < 1e-6
    assert np.abs(there.forces - here.forces).max() < 1e-6
    assert np.abs(there.dipole - here.dipole).max() < 1e-6
    for name in ("minao", "sap"):
        assert np.abs(there.matrices.references[name] - here.matrices.references[name]).max() < 1e-12


def test_auto_takes_a_gpu_that_agrees(installed: SimpleNamespace) -> None:
    assert dft.choose_engine("auto", LEVEL) == "gpu"
    assert dft.choose_engine("gpu", LEVEL) == "gpu"
    assert dft.choose_engine("cpu", LEVEL) == "cpu"


def test_a_gpu_with_other_numbers_is_not_used(installed: SimpleNamespace, caplog: Any) -> None:
    installed.shift = 3e-7
    assert dft.choose_engine("auto", LEVEL) == "cpu"
    assert "differ from PySCF's by 3.0e-07 Eh" in caplog.text
    with pytest.raises(InputError, match=r"engine 'gpu': Fock matrices of gpu4pyscf differ"):
        dft.choose_engine("gpu", LEVEL)


def test_no_gpu(installed: SimpleNamespace) -> None:
    installed.n_gpus = 0
    assert dft.choose_engine("auto", LEVEL) == "cpu"
    with pytest.raises(InputError, match="engine 'gpu': there is no GPU"):
        dft.choose_engine("gpu", LEVEL)


def test_gpu4pyscf_is_missing(missing: None) -> None:
    assert dft.choose_engine("auto", LEVEL) == "cpu"
    with pytest.raises(InputError, match="cupy is not installed: pip install gpu4pyscf-cuda12x"):
        dft.choose_engine("gpu", LEVEL)
