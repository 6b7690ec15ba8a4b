"""A new format is a class and a line in a table: import, its checks and the command line know it."""

from pathlib import Path

import numpy as np
import pytest

from foreign_files import WATER, house, label
from helmol.errors import InputError
from helmol.exchange import import_file
from helmol.exchange.readers import READERS, Entry, Reader, Source
from helmol.store import Store
from helmol.system import Matrices, Molecule, Sample

SOURCE = Source(
    "arrays", "pbe", "def2-svp", 1e-10, "test", "pyscf", overlap_tolerance=1e-8, fock_tolerance=1e-2
)


class ArraysReader(Reader):
    """Read one molecule from an npz file."""

    schemes = ()
    source = SOURCE

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._arrays = np.load(path)

    def rows(self):
        yield 0, ()

    def entry(self, key):
        return Entry("only", key, self._arrays["numbers"])

    def read(self, entry, arrangement):
        matrices = Matrices(
            *(arrangement.to_house(self._arrays[name], entry.numbers) for name in ("fock", "overlap"))
        )
        return Sample(entry.id, Molecule(entry.numbers, self._arrays["positions"]), matrices)

    def splits(self, scheme, ids):
        raise InputError("it has none")

    def close(self):
        self._arrays.close()


@pytest.fixture
def known(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, "arrays", ArraysReader)
    one = label(WATER, "pbe")
    positions = Molecule.from_angstrom(one.numbers, one.positions_ang).positions
    np.savez(
        tmp_path / "set.npz", numbers=one.numbers, positions=positions, fock=one.fock, overlap=one.overlap
    )
    return one


def test_it_is_imported_and_checked(known, tmp_path):
    result = import_file("arrays", tmp_path / "set.npz", out=tmp_path / "x.h5")
    with Store.open(tmp_path / "x.h5") as store:
        (sample,) = store
    np.testing.assert_array_equal(sample.matrices.fock, house(known.fock, known.shells))
    assert result["n_stored"] == 1
    assert result["checks"]["fock_error_Eh"] < 1e-5


def test_a_wrong_order_is_caught(known, tmp_path):
    """The planted fault: house order said to be PySCF's."""
    with np.load(tmp_path / "set.npz") as arrays:
        data = dict(arrays)
    data |= {name: house(data[name], known.shells)[::-1, ::-1] for name in ("fock", "overlap")}
    np.savez(tmp_path / "set.npz", **data)
    with pytest.raises(InputError, match="overlap"):
        import_file("arrays", tmp_path / "set.npz", out=tmp_path / "x.h5")
