"""Generation: complete, resumable, honest about failures, and never half-written."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helmol import dft, generate
from helmol.dft import LevelConfig
from helmol.errors import ConfigError, ConvergenceError, InputError, StoreError
from helmol.generate import GenerateConfig, MdSource, StructuresConfig, read_spec
from helmol.generate.pool import outcomes
from helmol.generate.records import Records
from helmol.generate.spec import identity
from helmol.generate.worker import Outcome, Task
from helmol.store import Store
from helmol.structures import Structure
from helmol.system import Matrices, Molecule, Sample

HF = LevelConfig(xc="hf", basis="sto-3g")


HEXANE = """20

C -3.175 -0.104  0.037
C -1.827  0.585  0.185
C -0.677 -0.348 -0.190
C  0.677  0.348 -0.040
C  1.827 -0.585 -0.415
C  3.175  0.104 -0.267
H -3.239 -0.981  0.688
H -3.983  0.582  0.310
H -3.338 -0.429 -0.995
H -1.709  0.926  1.220
H -1.807  1.476 -0.455
H -0.704 -1.239  0.450
H -0.802 -0.690 -1.225
H  0.704  1.239 -0.680
H  0.802  0.690  0.994
H  1.807 -1.476  0.224
H  1.709 -0.926 -1.450
H  3.338  0.429  0.765
H  3.239  0.981 -0.919
H  3.983 -0.582 -0.540
"""


def _hydrogen(length_ang: float) -> str:
    return f"2\n\nH 0 0 0\nH 0 0 {length_ang:.4f}\n"


WATER = "3\n\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n"


@pytest.fixture
def spec(tmp_path: Path) -> GenerateConfig:
    """Return a spec of eight hydrogen molecules."""
    path = tmp_path / "h2.xyz"
    path.write_text("".join(_hydrogen(0.7 + 0.01 * k) for k in range(8)))
    return GenerateConfig(
        structures=StructuresConfig(files=(str(path),)), level=HF, splits={"train": 5, "test": 2}
    )


def test_all_are_labelled_once_and_a_rerun_has_nothing_to_do(spec: GenerateConfig, tmp_path: Path) -> None:
    out = tmp_path / "new" / "h2.h5"
    result = generate.run(spec, out=out, workers=2)
    assert (result["n_labelled"], result["n_new"], result["n_failed"]) == (8, 8, 0)
    assert result["molecules_per_core_hour"] > 0
    again = generate.run(spec, out=out, workers=2)
    assert (again["n_labelled"], again["n_new"]) == (8, 0)
    assert again["content_hash"] == result["content_hash"]
    with Store.open(out) as store:
        assert sorted(store.ids) == [f"h2-{k:05d}" for k in range(8)]
        assert {name: len(ids) for name, ids in store.splits.items()} == {"train": 5, "test": 2}
        assert store.level.label == "RKS HF/sto-3g"
        sample = store[store.row("h2-00003")]
        assert sample.provenance["frame"] == 4
        assert "minao-lite" in sample.matrices.references
        assert store.verify() == []
    changed = spec.model_copy(update={"level": LevelConfig(xc="hf", basis="3-21g")})
    with pytest.raises(InputError, match=r"level\.basis: sto-3g, now 3-21g"):
        generate.run(changed, out=out, workers=1)
    assert not multiprocessing.active_children()


def test_failures_are_recorded_and_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "mixed.xyz"
    path.write_text(_hydrogen(0.74) + WATER + _hydrogen(0.8))
    # Hydrogen in a minimal basis converges at once by symmetry, water does not.
    config = GenerateConfig(
        structures=StructuresConfig(files=(str(path),)),
        level=HF.model_copy(update={"max_cycle": 4}),
        splits={"train": 2, "test": 1},
    )
    out = tmp_path / "mixed.h5"
    result = generate.run(config, out=out, workers=1)
    assert (result["n_labelled"], result["n_failed"]) == (2, 1)
    assert "4 cycles" in result["failures"][0]["reason"]
    assert result["splits"] == {"train": 1, "test": 1}
    lines = Path(f"{out}.failed.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["mixed-00001"]
    # Neither tried again by a rerun, nor counted twice; unless asked for.
    assert generate.run(config, out=out, workers=1)["cpu_seconds"] == 0
    assert generate.run(config, out=out, workers=1, retry_failed=True)["n_failed"] == 1
    path.write_text(WATER)
    with pytest.raises(ConvergenceError, match="none of 1 molecules"):
        generate.run(config.model_copy(update={"splits": {}}), out=tmp_path / "none.h5", workers=1)


def test_one_bad_structure_does_not_end_the_work_on_the_others(tmp_path: Path) -> None:
    frames = [
        _hydrogen(0.74), "2\n\nH 0 0 0\nX 0 0 1\n", "1\n\nU 0 0 0\n", "1\nmultiplicity=2\nH 0 0 0\n",
        "2\n\nH 0 0 0\nH 0 0 one\n", WATER, _hydrogen(0.8),
    ]  # fmt: skip
    path, out = tmp_path / "mixed.xyz", tmp_path / "x.h5"
    path.write_text("".join(frames))
    config = GenerateConfig(
        structures=StructuresConfig(files=path),
        level=HF.model_copy(update={"max_cycle": 4, "method": "rks"}),
        splits={"train": 6, "test": 1},
    )
    result = generate.run(config, out=out, workers=1)
    assert (result["n_labelled"], result["n_failed"], result["n_skipped"]) == (2, 1, 5)
    reasons = {2: "dummy", 3: "no functions for U", 4: "restricted", 5: "one", 6: "4 cycles"}
    for entry in result["skipped"]:
        assert reasons.pop(entry["row"]) in entry["reason"]
        assert (entry["item"], entry["file"]) == (f"mixed-{entry['row'] - 1:05d}", str(path))
    assert not reasons
    assert result["splits"] == {"train": 1, "test": 1}
    # A rerun has nothing to do and tells the same.
    again = generate.run(config, out=out, workers=1)
    assert again["n_new"] == 0
    assert {tuple(e.items()) for e in again["skipped"]} == {tuple(e.items()) for e in result["skipped"]}
    with pytest.raises(InputError, match="row 2, 'mixed-00001': atom 2"):
        generate.run(config, out=tmp_path / "y.h5", workers=1, strict=True)
    assert not (tmp_path / "y.h5").exists()
    path.write_text(frames[0] + 4 * _hydrogen(1) + frames[5])
    config = config.model_copy(update={"splits": {}})
    with pytest.raises(ConvergenceError, match=r"row 6, 'mixed-00005': .*4 cycles"):
        generate.run(config, out=tmp_path / "s.h5", workers=1, strict=True)


def test_closed_and_open_shells_in_one_set_make_an_unrestricted_store(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(_hydrogen(0.74) + "1\nmultiplicity=2\nH 0 0 0\n")
    config = GenerateConfig(structures=StructuresConfig(files=tmp_path / "a.xyz"), level=HF)
    result = generate.run(config, out=tmp_path / "a.h5", workers=1)
    assert (result["n_labelled"], result["n_skipped"], result["level"]) == (2, 0, "UKS HF/sto-3g")
    with Store.open(tmp_path / "a.h5") as store:
        atom = store[store.row("a-00001")]
        # The exact energy of this basis is that of one electron.
        assert atom.energy == pytest.approx(-0.46658185, abs=1e-7)


def test_folders_patterns_and_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (
        ("a/opt.xyz", _hydrogen(0.74)), ("b/opt.xyz", _hydrogen(0.76)), ("c/one.xyz", _hydrogen(0.78)),
        ("c/two.extxyz", _hydrogen(0.8)), ("c/notes.txt", "no structure"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "spec.yaml").write_text("structures: {files: '*/opt.xyz'}\nlevel: {xc: hf, basis: sto-3g}\n")
    wanted = {
        "pattern": (read_spec(f"{tmp_path}/*/opt.xyz"), ["a-opt", "b-opt"]),
        "folder": (read_spec(tmp_path / "c"), ["one", "two"]),
        "files": (read_spec([tmp_path / "a" / "opt.xyz", str(tmp_path / "c")]), ["opt", "one", "two"]),
        "spec": (read_spec(tmp_path / "spec.yaml"), ["a-opt", "b-opt"]),
    }
    for name, (config, ids) in wanted.items():
        config = config.model_copy(update={"level": HF})
        generate.run(config, out=tmp_path / f"{name}.h5", workers=1)
        with Store.open(tmp_path / f"{name}.h5") as store:
            assert sorted(store.ids) == sorted(ids)
        assert generate.run(config, out=str(tmp_path / f"{name}.h5"), workers=1)["n_new"] == 0
    (tmp_path / "c" / "three.xyz").write_text(_hydrogen(0.9))
    config = wanted["folder"][0].model_copy(update={"level": HF})
    with pytest.raises(InputError, match="was begun with another spec"):
        generate.run(config, out=tmp_path / "folder.h5", workers=1)
    with pytest.raises(InputError, match=r"spec\.yaml is a spec: give it alone"):
        read_spec([tmp_path / "spec.yaml", tmp_path / "c"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": LevelConfig(basis="nosuch")}, "unknown basis"),
        ({"level": LevelConfig(xc="nosuch")}, "unknown functional"),
        ({"splits": {"train": 9}}, "splits ask for 9"),
        ({"splits": {"train": 0.9, "test": 0.2}}, "splits ask for"),
        ({"structures": StructuresConfig(files=("none.xyz",))}, "does not exist"),
        ({"structures": StructuresConfig()}, "no structures"),
    ],
)
def test_bad_input_is_refused_before_work(
    spec: GenerateConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        generate.run(spec.model_copy(update=changes), out=tmp_path / "x.h5", workers=1)
    assert sorted(tmp_path.iterdir()) == before


def test_foreign_store_is_refused(spec: GenerateConfig, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    generate.run(spec, out=out, workers=1)
    Path(f"{out}.spec.json").unlink()
    with pytest.raises(InputError, match="not made by"):
        generate.run(spec, out=out, workers=1)


def _limited(spec: GenerateConfig, limit: int, **level: Any) -> GenerateConfig:
    """Return a spec of the first few structures at another level."""
    structures = spec.structures.model_copy(update={"limit": limit})
    changes = {"structures": structures, "level": LevelConfig(basis="sto-3g", **level), "splits": {}}
    return spec.model_copy(update=changes)


def test_the_auxiliary_basis_is_written_down_and_a_store_of_before_goes_on(
    spec: GenerateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: dict[str, Any] = {"xc": "hf", "density_fit": True}
    new, old = tmp_path / "new.h5", tmp_path / "old.h5"
    generate.run(_limited(spec, 1, **fitted), out=new, workers=1)
    assert "| auxbasis | def2-svp-jkfit |" in Path(f"{new}.card.md").read_text()
    with monkeypatch.context() as before:
        before.setattr(dft, "auxiliary_name", lambda *_: None)
        generate.run(_limited(spec, 1, **fitted), out=old, workers=1)
    assert "| auxbasis | not written down |" in Path(f"{old}.card.md").read_text()
    kept = Path(f"{old}.spec.json")
    text = json.loads(kept.read_text())
    assert text["level"].pop("auxbasis") == "auto"
    kept.write_text(json.dumps(text))
    assert generate.run(_limited(spec, 2, **fitted), out=old, workers=1)["n_new"] == 1
    with pytest.raises(InputError, match=r"level\.auxbasis: .*now def2-svp-jkfit"):
        generate.run(_limited(spec, 3, auxbasis="def2-svp-jkfit", **fitted), out=old, workers=1)
    monkeypatch.setattr(dft, "auxiliary_name", lambda *_: "another")
    with pytest.raises(StoreError, match="auxbasis def2-svp-jkfit, now another"):
        generate.run(_limited(spec, 2, **fitted), out=new, workers=1)


def test_a_store_without_dispersion_goes_on_without_it_only(spec: GenerateConfig, tmp_path: Path) -> None:
    out, xc = tmp_path / "old.h5", "HYB_GGA_XC_WB97X_D"
    generate.run(_limited(spec, 1, xc=xc, grid_level=0, dispersion=None), out=out, workers=1)
    with pytest.raises(StoreError, match="dispersion None, now chai-head-gordon"):
        generate.run(_limited(spec, 2, xc=xc, grid_level=0), out=out, workers=1)
    again = generate.run(_limited(spec, 2, xc=xc, grid_level=0, dispersion=None), out=out, workers=1)
    assert again["n_new"] == 1


def test_full_disk_ends_the_run_and_a_rerun_completes(
    spec: GenerateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.h5"

    def full(self: Store, samples: list[Sample]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", full)
        with pytest.raises(OSError, match="No space left"):
            generate.run(spec, out=out, workers=1)
    assert not multiprocessing.active_children()
    assert generate.run(spec, out=out, workers=1)["n_new"] == 8


def test_dynamics_are_kept_and_continued(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    (tmp_path / "water.xyz").write_text(WATER)
    source = MdSource(start=str(tmp_path / "water.xyz"), n_frames=3, stride=5, equilibration_steps=10)
    config = GenerateConfig(structures=StructuresConfig(md=source), level=HF, seed=7)
    first = generate.run(config, out=tmp_path / "a.h5", workers=1)
    other = generate.run(config, out=tmp_path / "b.h5", workers=2)
    assert first["content_hash"] == other["content_hash"]
    with Store.open(tmp_path / "a.h5") as store:
        assert store[0].provenance["source"] == "md"
        assert len({tuple(sample.molecule.positions.ravel()) for sample in store}) == 3
    with pytest.raises(InputError, match="seed: 7, now 8"):
        generate.run(config, out=tmp_path / "a.h5", workers=1, seed=8)


class _Bomb:
    """Ends the process that unpickles it, as a crash in a library would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)


def test_a_dying_process_costs_only_its_own_molecule() -> None:
    molecules = [Molecule.from_angstrom([1, 1], [[0, 0, 0], [0, 0, 0.7 + 0.01 * k]]) for k in range(5)]
    structures = [
        Structure(f"m{k}", molecule, {"bomb": _Bomb()} if k == 1 else {})
        for k, molecule in enumerate(molecules)
    ]
    found = [o for o in outcomes(structures, Task(HF, False, (), False), workers=2) if o is not None]
    assert sorted(o.work.id for o in found) == ["m0", "m1", "m2", "m3", "m4"]
    assert {o.work.id: o.reason for o in found if o.sample is None} == {
        "m1": "the process died twice (out of memory, or a crash in PySCF)"
    }
    assert not multiprocessing.active_children()


RUN = """
import signal, sys, time, typer
from helmol.cli.generate import generate
from helmol.store import Store
written, interrupted = 0, False
append = Store.append
def told(*arguments):
    # Say that the first batch is in the store, and do not write the second before this is stopped.
    global written
    while written and not interrupted and "--stopped" in sys.argv:
        time.sleep(0.01)
    append(*arguments)
    written += 1
    print("in the store", flush=True)
def interrupt(*arguments):
    global interrupted
    interrupted = True
    signal.default_int_handler(*arguments)
if __name__ == "__main__":
    # A test run that was started in the background would leave Ctrl-C ignored.
    signal.signal(signal.SIGINT, interrupt)
    Store.append = told
    app = typer.Typer(); app.command()(generate); app([word for word in sys.argv[1:] if word != "--stopped"])
"""


def stopped(command: list[str], how: signal.Signals) -> tuple[int, str]:
    """Stop a generation some time after its first batch; return its exit code and standard error."""
    process = subprocess.Popen(
        [*command, "--stopped"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "in the store\n"
    time.sleep(random.Random(how).uniform(0, 0.5))
    # As a terminal does it: Ctrl-C goes to the workers too.
    os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
    _, stderr = process.communicate(timeout=200)
    return process.returncode, stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_at_any_moment_a_rerun_completes(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "h2.xyz").write_text("".join(_hydrogen(0.6 + 0.002 * k) for k in range(200)))
    (tmp_path / "run.py").write_text(RUN)
    out = tmp_path / "h2.h5"
    settings = ["--workers", "2"]
    for key in ("level.xc=hf", "level.basis=sto-3g", "level.grid_level=0", "references=[]"):
        settings += ["--set", key]
    command = [
        sys.executable,
        str(tmp_path / "run.py"),
        str(tmp_path / "h2.xyz"),
        "--out",
        str(out),
        *settings,
    ]
    returncode, stderr = stopped(command, how)
    assert returncode != 0
    if how == signal.SIGINT:
        assert returncode == 130, stderr
        assert "Traceback" not in stderr
    with Store.open(out) as store:
        n_kept = len(store)
        assert store.verify() == []
    assert 0 < n_kept < 200
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{200 - n_kept} of them new, 0 failed; 0 skipped" in done.stdout
    with Store.open(out) as store:
        assert sorted(store.ids) == [f"h2-{k:05d}" for k in range(200)]


def test_interrupted_append_is_not_appended_twice(tmp_path: Path) -> None:
    added: list[str] = []

    class Interrupted:
        """A store whose first append is interrupted after it has been committed."""

        def append(self, samples: list[Sample]) -> None:
            added.extend(sample.id for sample in samples)
            if len(added) == 1:
                raise KeyboardInterrupt

        def __contains__(self, id: object) -> bool:
            return id in added

    molecule = Molecule.from_angstrom([1, 1], [[0, 0, 0], [0, 0, 0.7]])
    sample = Sample("a", molecule, Matrices(np.eye(2)))
    records = Records(Interrupted(), tmp_path / "x.h5")
    records.add(Outcome(Structure("a", molecule), sample, None, 1.0))
    with pytest.raises(KeyboardInterrupt), records:
        records.flush(force=True)
    assert added == ["a"]


def test_half_written_failure_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.h5.failed.jsonl"
    path.write_text('{"id": "a", "formula": "H2", "reason": "r", "seconds": 1}\n{"id": "b", "for')
    records = Records(Store, tmp_path / "x.h5")
    assert list(records.failed) == ["a"]
    assert path.read_text().count("\n") == 1


def test_spec_files(tmp_path: Path) -> None:
    (tmp_path / "m.xyz").write_text(WATER)
    spec = tmp_path / "spec.yaml"
    spec.write_text("structures:\n  files: [m.xyz]\nsplits: {train: 0.8, test: 0.2}\n")
    config = generate.read_spec(spec, overrides=["level.basis=def2-tzvpd", "structures.md.start=m.xyz",
                                                 "structures.md.n_frames=3"])  # fmt: skip
    assert config.structures.files == (str(tmp_path / "m.xyz"),)
    assert config.structures.md is not None
    assert config.structures.md.start == str(tmp_path / "m.xyz")
    assert config.level.basis == "def2-tzvpd"
    bare = generate.read_spec(tmp_path / "m.xyz", overrides=["forces=true"])
    assert bare.forces
    assert bare.level == LevelConfig()
    for text, message in {
        "structures: {files: [m.xyz]}\nlevle: {}": "did you mean 'level'",
        "structures: {md: {start: m.xyz, n_frame: 3}}": "did you mean 'n_frames'",
        "structures: {}": "give 'files' or 'md'",
        "structures: {files: [m.xyz]}\nsplits: {a: 1, b: 0.5}": "not both",
    }.items():
        spec.write_text(text)
        with pytest.raises(ConfigError, match=message):
            generate.read_spec(spec)


def test_a_gpu_that_is_not_there_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dft, "gpu_obstacle", lambda: "there is no GPU")
    path = tmp_path / "h2.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    spec = read_spec(path, overrides=["engine=gpu"])
    with pytest.raises(InputError, match="engine 'gpu': there is no GPU"):
        generate.run(spec, out=tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
    # The engine decides who computes, not what: the same store goes on.
    assert identity(spec, seed=0) == identity(spec.model_copy(update={"engine": "auto"}), seed=0)
