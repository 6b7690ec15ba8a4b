"""A model leaves as a folder and comes back from the hub as it was; what is damaged or no model does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import helmol
from helmol.cli.main import main
from helmol.errors import InputError
from helmol.hub import HubName, hub_name
from helmol.model import export_model
from hub_server import Repos, served, version


def test_an_export_is_the_model_and_says_what_it_is(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    for _ in range(2):  # the second one over the first
        result = export_model("organic", out, licence="mit")
    assert helmol.load(out).fingerprint == helmol.load("organic").fingerprint
    assert sorted(path.name for path in out.iterdir()) == sorted(result["files"])
    assert result["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    text = (out / "README.md").read_text()
    assert text.startswith("---\nlicense: mit\n")
    assert "PBE/def2-svp" in text
    assert "QM9" in text


def test_a_damaged_model_is_not_given_away(tmp_path: Path) -> None:
    export_model("organic", tmp_path / "good")
    weights = tmp_path / "good" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match="changed"):
        export_model(tmp_path / "good", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_else_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        export_model("organic", tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years"
    with pytest.raises(InputError, match="is a file"):
        export_model("organic", tmp_path / "thesis.tex")
    export_model("organic", tmp_path / "mine")
    with pytest.raises(InputError, match="the model itself"):
        export_model(tmp_path / "mine", tmp_path / "mine")
    assert helmol.load(tmp_path / "mine")


def test_names_on_the_hub() -> None:
    assert hub_name("hf://me/a.model@v1.0") == HubName("me/a.model", "v1.0")
    assert hub_name(Path("hf://me/mine")) == HubName("me/mine")  # a path has one slash only
    assert str(hub_name("hf://me/mine")) == "hf://me/mine"
    assert hub_name("me/mine") is None
    for wrong in ("hf://me", "hf://a/b/c", "hf://me/mine@", "hf://../x/y"):
        with pytest.raises(InputError, match="no name of a model"):
            hub_name(wrong)


def test_without_the_library_it_is_said_what_to_install(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SystemExit) as end:
        main(["predict", "hf://me/mine", str(tmp_path)])
    assert end.value.code == 1
    assert "pip install 'helmol[hub]'" in capsys.readouterr().err


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Return what runs a verb here and gives its exit code and all it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        code = 0
        try:
            main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_to_the_hub_and_back(tmp_path: Path, told, monkeypatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repos: Repos = {"me/text": {"README.md": b"no model"}}
    with served(repos) as (url, asked):
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        assert told("export", "organic", "--out", "mine", "--push", "hf://me/mine")[0] == 0
        assert repos["me/mine"]["model.json"] == (tmp_path / "mine" / "model.json").read_bytes()
        code, said = told("fetch", "hf://me/mine", "--out", "back", "--json", "fetch.json")
        assert (code, "PBE/def2-svp" in said) == (0, True)
        assert json.loads((tmp_path / "fetch.json").read_text())["name"] == "hf://me/mine"
        for name, content in repos["me/mine"].items():
            assert (tmp_path / "back" / name).read_bytes() == content

        (tmp_path / "h2.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
        asked.clear()
        assert told("predict", "hf://me/mine", "h2.xyz", "--out", "found")[0] == 0
        assert not asked  # the copy in the cache is taken
        assert (tmp_path / "found" / "summary.csv").is_file()

        for name, reason in {
            "hf://me/none": "hub has no hf://me/none",
            "hf://me/mine@gone": "hub has no hf://me/mine@gone",
            "hf://me/text": "no model of helmol: it has no model.safetensors",
            "me/mine": "no name on the hub",
        }.items():
            code, said = told("fetch", name)
            assert code == 1
            assert reason in said
        old, weights = version(repos["me/mine"]), bytearray(repos["me/mine"]["model.safetensors"])
        weights[-5] ^= 1
        repos["me/mine"]["model.safetensors"] = bytes(weights)
        code, said = told("fetch", "hf://me/mine", "--out", "newer")
        assert (code, "changed" in said, (tmp_path / "newer").exists()) == (1, True, False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # What was fetched is still there, anything else is not.
    assert helmol.load(f"hf://me/mine@{old}").fingerprint == helmol.load("organic").fingerprint
    with pytest.raises(InputError, match="hub cannot be used"):
        helmol.load("hf://me/other")
