"""What goes out comes back to the last bit, and other programs can read it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pyscf import dft as pyscf_dft
from pyscf import gto, lib

from helmol import dft, structures
from helmol.dft import LevelConfig
from helmol.errors import InputError, StoreError
from helmol.exchange import containers, converting, export_store, import_file, import_store
from helmol.exchange.arrays import exact_arrays, sample_from
from helmol.store import Store
from helmol.system import Matrices, Molecule
from helmol.units import DEBYE_PER_AU
from store_samples import assert_same

WATER = np.array([[0.0, 0.0, 0.1], [0.0, 1.43, -0.98], [0.0, -1.43, -0.98]])
KINDS = ("npz", "qh9", "extxyz")


def store_of(path, *, xc="pbe", method="rks", molecules=None, **options):
    level = LevelConfig(xc=xc, basis="def2-svp", method=method, grid_level=1, conv_tol=1e-12)
    molecules = molecules or [Molecule([8, 1, 1], WATER + k * 0.05) for k in range(2)]
    labelled = [dft.run(m, level, id=f"mol/{k}", **options) for k, m in enumerate(molecules)]
    basis = labelled[0][1]
    for _, other in labelled[1:]:
        basis = basis.merged(other)
    with Store.create(path, level=dft.level_of_theory(level, method=method), basis=basis) as store:
        store.append([sample for sample, _ in labelled])
        store.set_splits({"train": ["mol/0"], "val": store.ids[1:]})
    return path


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("full") / "x.h5", forces=True, density=True)


@pytest.fixture(scope="module")
def radical(tmp_path_factory):
    path = tmp_path_factory.mktemp("radical") / "x.h5"
    return store_of(path, method="uks", molecules=[Molecule([8, 1], WATER[:2], spin=1)], references=())


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_to_the_last_bit(kind, full, tmp_path):
    export_store(full, kind, out=tmp_path / "out")
    import_store(tmp_path / "out", out=tmp_path / "back.h5")
    with Store.open(full) as before, Store.open(tmp_path / "back.h5") as after:
        for left, right in zip(before, after, strict=True):
            assert_same(left, right)
        assert after.content_hash == before.content_hash
        assert after.splits == before.splits


@pytest.mark.parametrize("kind", ["npz", "extxyz"])
def test_unrestricted_and_missing_labels(kind, radical, tmp_path):
    export_store(radical, kind, out=tmp_path / "out")
    import_store(tmp_path / "out", out=tmp_path / "back.h5")
    with Store.open(radical) as before, Store.open(tmp_path / "back.h5") as after:
        assert_same(before[0], after[0])
        assert after[0].forces is None
        assert after[0].matrices.density is None


def test_qh9_refuses_two_fock_matrices(radical, tmp_path):
    with pytest.raises(InputError, match="unrestricted"):
        export_store(radical, "qh9", out=tmp_path / "out.db")
    assert not list(tmp_path.iterdir())


def test_npz_has_pyscf_numbers_in_pyscf_order(full, tmp_path):
    export_store(full, "npz", out=tmp_path / "out")
    with np.load(tmp_path / "out" / "mol_0.npz") as data:
        mole = gto.M(
            atom=[(8, WATER[0]), (1, WATER[1]), (1, WATER[2])], unit="Bohr", basis="def2-svp", verbose=0
        )
        mf = pyscf_dft.RKS(mole, xc="pbe")
        mf.grids.level, mf.conv_tol = 1, 1e-12
        mf.kernel()
        assert np.abs(data["fock"] - mf.get_fock()).max() < 1e-6
        assert np.abs(data["overlap"] - mf.get_ovlp()).max() < 1e-12
        assert np.abs(data["mo_energy"] - mf.mo_energy).max() < 1e-7
        assert np.abs(data["density"] - mf.make_rdm1()).max() < 1e-6
        assert np.abs(data["dipole"] - mf.dip_moment(verbose=0)).max() < 1e-5
        assert np.array_equal(data["dipole"], data["dipole_au"] * DEBYE_PER_AU)
        occupied = data["mo_coeff"][:, data["mo_occ"] > 0]
        assert np.abs(2 * occupied @ occupied.T - mf.make_rdm1()).max() < 1e-6


def test_pyscf_starts_from_the_chkfile(full, tmp_path):
    export_store(full, "extxyz", out=tmp_path / "out", split="val")
    mole = lib.chkfile.load_mol(str(tmp_path / "out" / "mol_1.chk"))
    mole.verbose = 0
    mf = pyscf_dft.RKS(mole, xc="pbe")
    mf.grids.level = 1
    mf.kernel(dm0=mf.from_chk(str(tmp_path / "out" / "mol_1.chk")))
    assert mf.cycles <= 2
    with Store.open(full) as store:
        assert mf.e_tot == pytest.approx(store[1].energy, abs=1e-8)
    (frame,) = structures.read(tmp_path / "out" / "structures.extxyz")
    assert np.allclose(frame.molecule.positions, WATER + 0.05, atol=1e-12)


def test_ase_reads_energy_and_forces(full, tmp_path):
    from ase.io import read
    from ase.units import Bohr, Hartree

    export_store(full, "extxyz", out=tmp_path / "out")
    atoms = read(tmp_path / "out" / "structures.extxyz", index=0)
    with Store.open(full) as store:
        assert atoms.get_potential_energy() == pytest.approx(store[0].energy * Hartree, rel=1e-8)
        assert np.allclose(atoms.get_forces(), store[0].forces * Hartree / Bohr, rtol=1e-6)


def test_the_qh9_reader_reads_the_qh9_file(tmp_path):
    level = LevelConfig(xc="b3lyp5", basis="def2-svp", method="rks", conv_tol=1e-12)
    sample, basis = dft.run(Molecule([8, 1, 1], WATER), level, id="a")
    with Store.create(tmp_path / "x.h5", level=dft.level_of_theory(level), basis=basis) as store:
        store.append([sample])
    export_store(tmp_path / "x.h5", "qh9", out=tmp_path / "set.db")
    import_file("qh9-stable", tmp_path / "set.db", out=tmp_path / "y.h5")
    with Store.open(tmp_path / "y.h5") as store:
        assert np.array_equal(store[0].matrices.fock, sample.matrices.fock)


def test_faults_are_caught(full, tmp_path):
    with pytest.raises(InputError, match="unknown format"):
        export_store(full, "csv", out=tmp_path / "out")
    export_store(full, "npz", out=tmp_path / "out")
    with pytest.raises(InputError, match="there already"):
        export_store(full, "npz", out=tmp_path / "out")
    (tmp_path / "out" / "store.json").unlink()
    with pytest.raises(InputError, match=r"holds no store\.json"):
        import_store(tmp_path / "out", out=tmp_path / "back.h5")


@pytest.fixture(scope="module")
def many(tmp_path_factory, full):
    """Seven samples, with names that need changing to be names of files."""
    path = tmp_path_factory.mktemp("many") / "x.h5"
    with Store.open(full) as store, Store.create(path, level=store.level, basis=store.basis) as other:
        other.append([replace(store[k % 2], id=f"m/{k}") for k in range(7)])
    return path


KILLED = """
import os, signal, sys
from pathlib import Path
from helmol.exchange import containers, converting, export_store, import_store
from helmol.store import Store
kind, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
containers.ROWS_PER_COMMIT, converting.SAMPLES_PER_APPEND = 2, 2
done = 0
def killing(method):
    def wrapped(*arguments):
        global done
        done += 1
        if done == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments)
    return wrapped
if kind == "store":
    converting.sample_from = killing(converting.sample_from)
    import_store(source, out=out)
else:
    cls = containers.CONTAINERS[kind]
    cls.write = killing(cls.write)
    export_store(source, kind, out=out)
"""


def killed(kind, source, out):
    run = subprocess.run([sys.executable, "-P", "-c", KILLED, kind, str(source), str(out)], check=False)
    assert run.returncode == -signal.SIGKILL


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_conversion_is_not_taken_for_whole_and_goes_on(kind, many, full, tmp_path, monkeypatch):
    out = tmp_path / "out"
    killed(kind, many, out)
    assert not out.is_file()
    with pytest.raises((InputError, OSError)):
        import_store(out, out=tmp_path / "back.h5")
    if kind != "qh9":
        with pytest.raises(InputError, match="part of another conversion"):
            export_store(full, kind, out=out)
    written = []
    monkeypatch.setattr(
        containers, "exact_arrays", lambda s, b: (written.append(s.id), exact_arrays(s, b))[1]
    )
    export_store(many, kind, out=out)
    # Three were written before the end; the table of QH9 commits two at a time.
    assert written == [f"m/{k}" for k in range(2 if kind == "qh9" else 3, 7)]
    import_store(out, out=tmp_path / "back.h5")
    with Store.open(many) as before, Store.open(tmp_path / "back.h5") as after:
        assert after.content_hash == before.content_hash
        assert after.ids == before.ids
    if kind == "extxyz":
        assert len(structures.read(out / "structures.extxyz")) == 7
    if kind != "qh9":
        assert not [p.name for p in out.iterdir() if p.suffix not in (".npz", ".chk", ".json", ".extxyz")]
    assert {p.name for p in tmp_path.iterdir()} == {"out", "back.h5"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_return_goes_on(kind, many, tmp_path, monkeypatch):
    export_store(many, kind, out=tmp_path / "out")
    killed("store", tmp_path / "out", tmp_path / "back.h5")
    assert not (tmp_path / "back.h5").exists()
    read = []
    monkeypatch.setattr(converting, "sample_from", lambda a, b: (read.append(1), sample_from(a, b))[1])
    import_store(tmp_path / "out", out=tmp_path / "back.h5")
    assert len(read) == 5
    with Store.open(many) as before, Store.open(tmp_path / "back.h5") as after:
        assert after.content_hash == before.content_hash
    assert {p.name for p in tmp_path.iterdir()} == {"out", "back.h5"}


def test_names_with_quotes_and_an_empty_store(full, tmp_path):
    names = ['a "b" c', "d\\e", "it's"]
    with Store.open(full) as store:
        level, basis = store.level, store.basis
        with Store.create(tmp_path / "x.h5", level=level, basis=basis) as other:
            other.append([replace(store[0], id=name) for name in names])
        Store.create(tmp_path / "none.h5", level=level, basis=basis).close()
    export_store(tmp_path / "x.h5", "extxyz", out=tmp_path / "out")
    frames = structures.read(tmp_path / "out" / "structures.extxyz")
    assert [frame.id for frame in frames] == names
    for kind in KINDS:
        export_store(tmp_path / "none.h5", kind, out=tmp_path / kind)
        assert import_store(tmp_path / kind, out=tmp_path / f"{kind}.h5")["n_molecules"] == 0


def test_a_sample_of_energy_alone_is_refused(full, tmp_path):
    with Store.open(full) as store:
        level, basis, sample = store.level, store.basis, store[0]
    with Store.create(tmp_path / "x.h5", level=level, basis=basis) as new:
        new.append([replace(sample, matrices=Matrices(np.zeros((0, 0))))])
    for kind in KINDS:
        with pytest.raises(InputError, match="'mol/0': it has no Fock matrix"):
            export_store(tmp_path / "x.h5", kind, out=tmp_path / kind)


def test_a_folder_with_other_files_is_not_written_into(full, tmp_path):
    (tmp_path / "mol_0.npz").write_text("mine")
    with pytest.raises(InputError, match="there already"):
        export_store(full, "npz", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mol_0.npz"]


def test_a_damaged_header_file_or_sample_is_named(full, tmp_path):
    export_store(full, "npz", out=tmp_path / "out")
    header, file = tmp_path / "out" / "store.json", tmp_path / "out" / "mol_1.npz"
    whole, arrays = header.read_text(), dict(np.load(file))
    for key, value in (("basis", {}), ("level", {"a": 1}), ("splits", None)):
        header.write_text(json.dumps({**json.loads(whole), key: value}))
        with pytest.raises(InputError, match="the header is damaged"):
            import_store(tmp_path / "out", out=tmp_path / "back.h5")
    header.write_text(whole)
    for change in (
        {"fock": arrays["fock"][:, :-1]},
        {"numbers": np.array([7, 1, 1])},
        {"spin": np.array("x")},
    ):
        np.savez(file, **{**arrays, **change})
        assert come_back(tmp_path, file)["item"] == "mol/1"
        with pytest.raises(InputError, match="'mol/1': "):
            import_store(tmp_path / "out", out=tmp_path / "back.h5", strict=True)
    file.write_bytes(file.read_bytes()[:5000])
    assert come_back(tmp_path, file)["item"] == "mol_1.npz"
    file.unlink()
    assert "No such file" in come_back(tmp_path, file)["reason"]
    (tmp_path / "out" / "mol_0.npz").unlink()
    with pytest.raises(
        InputError, match=r"none of 2 molecules can be used; the first: .*mol_0\.npz.*No such"
    ):
        import_store(tmp_path / "out", out=tmp_path / "back.h5")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def come_back(folder, file):
    """Make a store of a folder with one bad file and return the record of that."""
    result = import_store(folder / "out", out=folder / "back.h5")
    with Store.open(folder / "back.h5") as store:
        assert store.ids == ["mol/0"]
        assert store.splits == {"train": ["mol/0"], "val": []}
    (folder / "back.h5").unlink()
    (entry,) = result["skipped"]
    assert (entry["file"], entry["row"]) == (str(file), None)
    return entry


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_sample_is_left_out_and_named(kind, many, tmp_path):
    """One byte of the store is changed; the other samples come out, and back."""
    path = tmp_path / "x.h5"
    with Store.open(many) as store:
        fock = store.values("fock", 4).tobytes()
        wanted = [id for id in store.ids if id != "m/4"]
    data = bytearray(many.read_bytes())
    data[[m.start() for m in re.finditer(re.escape(fock), data)][2]] ^= 1
    path.write_bytes(data)
    result = export_store(path, kind, out=tmp_path / "out")
    (entry,) = result["skipped"]
    assert (entry["item"], entry["file"], entry["row"], result["n_molecules"]) == ("m/4", str(path), 4, 6)
    assert "fock does not match its checksum" in entry["reason"]
    back = import_store(tmp_path / "out", out=tmp_path / "back.h5")
    assert (back["n_molecules"], back["n_skipped"]) == (6, 0)
    with Store.open(tmp_path / "back.h5") as store:
        assert store.ids == wanted
    with pytest.raises(StoreError, match=r"x\.h5, row 4, 'm/4': fock does not match"):
        export_store(path, kind, out=tmp_path / "strict", strict=True)
