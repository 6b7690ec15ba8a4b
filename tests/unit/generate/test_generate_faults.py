"""Nothing named in a spec is called unless the key wants it; two processes; damage around a store."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from forked import killed_after, together, tried
from helmol import generate
from helmol.dft import LevelConfig
from helmol.errors import InputError
from helmol.generate import ExecutorConfig, GenerateConfig, StructuresConfig, read_spec
from helmol.generate.cluster import started
from helmol.generate.records import Records
from helmol.store import Store

pytestmark = pytest.mark.faults

HF = LevelConfig(xc="hf", basis="sto-3g", grid_level=0)


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> GenerateConfig:
    """Return a spec of four hydrogen molecules."""
    frames = (f"2\n\nH 0 0 0\nH 0 0 {0.7 + 0.01 * k:.4f}\n" for k in range(4))
    tmp_path = tmp_path_factory.mktemp("spec")
    (tmp_path / "h2.xyz").write_text("".join(frames))
    return GenerateConfig(
        structures=StructuresConfig(files=(str(tmp_path / "h2.xyz"),)), level=HF, references=()
    )


@pytest.fixture(scope="module")
def finished(spec, tmp_path_factory) -> Path:
    """Return the folder of a finished store."""
    folder = tmp_path_factory.mktemp("finished")
    generate.run(spec, out=folder / "x.h5", workers=1)
    return folder


@pytest.fixture
def out(finished, tmp_path) -> Path:
    """Return the path of a copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "copy")) / "x.h5"


@pytest.mark.parametrize(
    "cluster",
    [
        "subprocess.Popen",
        "os.system",
        "builtins.exec",
        "evil.Cluster",
        "distributed.Client",
        "distributed.LocalClusters",
        "distributed.utils.sys.exit",
        "distributed.deploy.local.logging.Logger",
        "dask.config",
        "dask.compute",
        "dask_of_nobody.Cluster",
        "distributed",
        "",
        ".",
        "distributed.LocalCluster()",
        "distributed..LocalCluster",
    ],
)
def test_nothing_but_a_cluster_class_is_imported_or_called(cluster, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'called')!r}, 'w')\nclass Cluster: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"args": ["touch", str(tmp_path / "called")]}
    config = ExecutorConfig(kind="dask", cluster=cluster, options=options)
    with pytest.raises(InputError, match="no Dask cluster class"), started(config, workers=1):
        pass
    assert not (tmp_path / "called").exists()
    assert "evil" not in sys.modules


# Dask's class complains of what is left of it when it could not be started.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("options", [{"n_workers": "many"}, {"n_workers": -1.5}])
def test_options_that_a_cluster_does_not_take_are_one_line(options):
    config = ExecutorConfig(kind="dask", options=options)
    with pytest.raises(InputError, match="cannot be started with these options"), started(config, workers=1):
        pass


@pytest.mark.parametrize(
    "text", ["", "config = 5", "raise SystemError('no')", "1/0", "config = (", "import nothing_here"]
)
def test_a_parsl_file_that_sets_nothing_of_use_is_one_line(text, tmp_path):
    (tmp_path / "p.py").write_text(text)
    config = ExecutorConfig(kind="parsl", config=str(tmp_path / "p.py"))
    with pytest.raises(InputError, match=r"p\.py (is no Python file that sets|sets 'config' to a int)"):
        with started(config, workers=1):
            pass


@pytest.mark.parametrize("text", ["{", "", "[1]", "\x00", "[" * 100_000])
def test_a_damaged_record_of_the_spec_is_named_and_nothing_deleted(spec, out, text):
    Path(f"{out}.spec.json").write_text(text)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"x\.h5\.spec\.json.*what .*x\.h5 was begun with is not known"):
        generate.run(spec, out=out, workers=1)
    assert out.read_bytes() == before


def test_damaged_lines_of_failures_are_dropped(out):
    lines = [b'{"id": "a", "reason": "b"}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"5\n", b'{"id": "c"']
    Path(f"{out}.failed.jsonl").write_bytes(b"".join(lines))
    with Store.open(out, "a") as store, Records(store, out) as records:
        assert list(records.failed) == ["a"]


def test_of_two_processes_one_generates(spec, tmp_path, many):
    for turn in range(many(1, 20)):
        out = tmp_path / f"{turn}.h5"
        outcomes = together([lambda out=out: generate.run(spec, out=out, workers=1)["n_labelled"]] * 2)
        assert [outcome.get("ok") for outcome in outcomes].count(4) >= 1
        assert all("ok" in o or "in use: process" in o["refused"] for o in outcomes)
        with Store.open(out) as store:
            assert len(store) == 4
            assert store.verify() == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_killed_at_any_moment_the_same_call_goes_on(spec, tmp_path, many):
    for turn in range(many(1, 20)):
        out, kills = tmp_path / f"{turn}.h5", 0
        while "ok" not in (
            outcome := killed_after(
                lambda out=out: generate.run(spec, out=out, workers=1)["n_labelled"], 0.5 * 2.5**kills
            )
        ):
            assert outcome == {"died": -9}
            kills += 1
        with Store.open(out) as store:
            assert len(store) == 4
            assert store.verify() == []
        assert json.loads((tmp_path / f"{turn}.h5.splits.json").read_text()) == {}


@pytest.mark.parametrize(
    "text",
    [
        "structures: {files: [x.xyz], limit: 1.0e+30}", "structures: {files: [x.xyz]}\nlevel: {xc: [.inf]}",
        "structures: {md: {start: x.xyz, n_frames: 1000000000000}}", "structures: {files: 5}",
        "structures: 5", "structures: {files: [x.xyz]}\nlevel: {conv_tol: .inf}",
        "structures: {files: [x.xyz]}\nsplits: {train: .nan}", "structures: {files: [x.xyz]}\nseed: -1",
        "structures: {files: [x.xyz]}\nlevel: {max_cycle: 1e99}", "structures: {files: [null]}",
        "structures: {files: [.]}", "structures: {smiles: {list: [C], n_conformers: 1e9}}",
        "structures: {files: [x.xyz], files: [y.xyz]}", "structures: {files: ['\\0']}",
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_meant_is_one_line(text, tmp_path):
    (tmp_path / "spec.yaml").write_text(text)

    def run():
        generate.run(read_spec(tmp_path / "spec.yaml"), out=tmp_path / "out" / "x.h5", workers=1)

    assert tried(run)[1]
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
