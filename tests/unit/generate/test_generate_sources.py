"""Sources of structures, presets, shards, memory: what a spec says is what is labelled."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helmol import dft, generate
from helmol.config import parse
from helmol.dft import LevelConfig
from helmol.errors import ConfigError, InputError
from helmol.generate import GenerateConfig, read_spec
from helmol.generate.sources import Sources
from helmol.generate.spec import continues, identity
from helmol.generate.worker import Task, label
from helmol.store import Store
from helmol.structures import Structure
from helmol.system import Molecule

WATER = "3\n\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n"
HYDROGEN = '2\nProperties=species:S:1:pos:R:3 smiles="[H][H]" index=7\nH 0 0 0\nH 0 0 0.74\n'
SMALL = {"xc": "hf", "basis": "sto-3g", "grid_level": 0}


def written(folder: Path, structures: dict[str, Any], **more: Any) -> GenerateConfig:
    (folder / "w.xyz").write_text(WATER)
    (folder / "h.extxyz").write_text(HYDROGEN)
    spec = folder / "spec.yaml"
    # JSON is YAML.
    spec.write_text(json.dumps({"structures": structures, "level": SMALL, "references": [], **more}))
    return read_spec(spec)


def test_presets_are_the_levels_of_the_data_sets() -> None:
    read = {
        name: parse(GenerateConfig, {"structures": {}, "level": name}).level for name in dft.LEVEL_PRESETS
    }
    assert set(read) == {"md17", "qh9", "nabladft", "omol", "fast"}
    assert read["md17"] == LevelConfig(xc="pbe", basis="def2-svp")
    resolved = {name: dft.level_of_theory(level, method="rks").xc_resolved for name, level in read.items()}
    # libxc's own numbers: 471 is wB97X-D, 531 wB97M-V.
    assert resolved["md17"] == resolved["fast"] == "1*101 + 1*130"
    assert resolved["qh9"] != dft.level_of_theory(LevelConfig(xc="b3lyp"), method="rks").xc_resolved
    assert "471" in resolved["nabladft"]
    assert "531" in resolved["omol"]
    assert read["omol"].ecp_name == "def2-tzvpd"
    level = parse(GenerateConfig, {"structures": {}, "level": {"preset": "fast", "basis": "sto-3g"}}).level
    assert (level.density_fit, level.basis) == (True, "sto-3g")
    with pytest.raises(ConfigError, match="unknown preset 'omol25': known are md17"):
        parse(GenerateConfig, {"structures": {}, "level": "omol25"})


def test_recipes_of_all_kinds_bring_their_provenance(tmp_path: Path) -> None:
    config = written(
        tmp_path,
        {
            "files": ["w.xyz", "h.extxyz"],
            "smiles": {"list": ["C", "C1C"]},
            "random": {"n": 1, "max_atoms": 5, "elements": ["H", "C", "O"], "relax_steps": 20},
            "modes": {"start": "w.xyz", "n_samples": 1},
            "dimers": {"first": "w.xyz", "second": "h.extxyz", "distances_ang": [3]},
            "complexes": {"n": 1, "fragments": ["w.xyz", "h.extxyz"], "max_atoms": 6, "relax_steps": 20},
            "order": "smallest",
        },
    )
    result = generate.run(config, out=tmp_path / "x.h5", workers=1)
    assert (result["n_structures"], result["n_labelled"], result["n_failed"]) == (8, 7, 1)
    assert "no SMILES" in result["failures"][0]["reason"]
    with Store.open(tmp_path / "x.h5") as store:
        of = {sample.id: sample.provenance for sample in store}
        sizes = [sample.molecule.n_atoms for sample in store]
    assert {of[id]["source"] for id in of} == {
        "w.xyz", "h.extxyz", "conformers", "random", "normal modes", "dimers", "complexes",
    }  # fmt: skip
    assert (of["h"]["smiles"], of["h"]["index"]) == ("[H][H]", 7)
    assert of["smiles-00000-c00"]["smiles"] == "C"
    assert sizes == sorted(sizes)


def test_a_smiles_that_fails_is_named_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "some.smi").write_text("# mine\nO water\nC1C broken\n*C dummy\n")
    config = written(tmp_path, {"smiles": {"file": "some.smi"}, "limit": 3})
    result = generate.run(config, out=tmp_path / "x.h5", workers=1)
    found = {entry["item"]: (Path(entry["file"]).name, entry["row"]) for entry in result["skipped"]}
    assert found == {"broken-c00": ("some.smi", 3), "dummy-c00": ("some.smi", 4)}


def test_shards_make_the_whole(tmp_path: Path) -> None:
    config = written(tmp_path, {"dimers": {"first": "h.extxyz", "second": "h.extxyz",
                                           "distances_ang": [2, 2.5, 3, 3.5, 4]}})  # fmt: skip
    ids: list[str] = []
    for k in (1, 2):
        generate.run(config, out=tmp_path / f"{k}.h5", workers=1, shard=(k, 2))
        with Store.open(tmp_path / f"{k}.h5") as store:
            ids += store.ids
    assert len(ids) == len(set(ids)) == 5
    with pytest.raises(InputError, match="shard 3/2"):
        generate.run(config, out=tmp_path / "3.h5", workers=1, shard=(3, 2))


def test_a_limit_may_be_raised_and_new_keys_do_not_estrange_old_stores(tmp_path: Path) -> None:
    few = written(tmp_path, {"files": ["w.xyz", "h.extxyz"], "order": "smallest", "limit": 1})
    all_ = written(tmp_path, {"files": ["w.xyz", "h.extxyz"]}, memory_per_worker_mb=900)
    sources = Sources(few.structures, seed=0)
    assert [work.id for work in sources.chosen(sources.fixed)] == ["h"]
    new, old = identity(all_, seed=0), identity(few, seed=0)
    assert new == old
    for section, key in ((old["structures"], "random"), (old, "dipole")):
        del section[key]
    assert continues(old, new)
    assert not continues({**old, "forces": True}, new)


def test_frames_called_like_others_are_refused_before_any_label(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "w.xyz").write_text(WATER + WATER.replace("0.59", "0.6"))
    md = {"start": "w.xyz", "n_frames": 1, "stride": 1, "equilibration_steps": 0, "relax": False}
    with pytest.raises(InputError, match="two structures are called 'w-00000'"):
        generate.run(written(tmp_path, {"files": ["many/w.xyz"], "md": md}), out=tmp_path / "x.h5", workers=1)
    assert not (tmp_path / "x.h5").exists()
    # A start may be labelled, too: it is called otherwise than its frames.
    assert Sources(written(tmp_path, {"files": ["w.xyz"], "md": md}).structures, seed=0).n_structures == 2


def test_a_spec_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, {"files": ["w.xyz"], "max_atoms": 2})
    with pytest.raises(InputError, match="no structure is left: all have more than max_atoms = 2"):
        generate.run(config, out=tmp_path / "x.h5", workers=1)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"train": True}}, "expected numbers of molecules"),
        ({"splits": {"train": -1}}, "expected numbers of molecules"),
        ({"splits": {"train": float("nan")}}, "expected numbers of molecules"),
        ({"splits": {"train": 0.9, "test": 0.2}}, "sum to 1.1, more than 1"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"structures": {"files": 7}}, "structures.files"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(GenerateConfig, {"structures": {}, **change})


def test_what_does_not_fit_is_skipped_with_a_reason() -> None:
    positions = np.array([[1.5 * k, 0.0, 0.0] for k in range(40)])
    large = Structure("c40", Molecule.from_angstrom(np.full(40, 6), positions))
    level = LevelConfig(xc="hf", basis="def2-svp")
    outcome = label(large, Task(level, False, (), False, memory_mb=500))
    assert outcome.sample is None
    assert outcome.reason is not None
    assert outcome.reason.startswith("skipped: C40 needs about 691 MB, a worker has 500 MB")
    small = Structure("h", Molecule.from_angstrom([1, 1], [[0, 0, 0], [0, 0, 0.74]]))
    made = label(small, Task(LevelConfig(**SMALL), False, (), False, dipole=False, memory_mb=500)).sample
    assert made is not None
    assert made.dipole is None
