"""Models that come with helmol are found by name, are small, and do what their cards say."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import helmol
from helmol import dft, shipped
from helmol.cli.main import main
from helmol.elements import SYMBOLS
from helmol.errors import DomainError, InputError
from helmol.model import find_model
from helmol.system import Molecule

NAMES = shipped.shipped_names()
ACETAMIDE = Molecule(
    [6, 6, 8, 7, 1, 1, 1, 1, 1],
    np.array(
        [
            [0.0, 0.0, 0.0], [1.51, 0.0, 0.0], [2.13, 1.05, 0.0], [2.13, -1.21, 0.0], [-0.37, 1.03, 0.05],
            [-0.38, -0.48, 0.9], [-0.38, -0.55, -0.87], [3.14, -1.26, 0.02], [1.6, -2.07, -0.03],
        ]
    ) / 0.529177,
)  # fmt: skip


LEAST = {"organic": 7, "elements": 2}
"""How many times less than its H₀ the error of a model is at least, on every set of the card."""


def test_there_is_a_model():
    assert "organic" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card_and_model_say_the_same(name):
    card, model = shipped.shipped_card(name), helmol.load(name)
    assert [SYMBOLS[z] for z in sorted(model.domain.basis.elements)] == list(card["elements"])
    assert [str(q) for q in model.domain.charges] == list(card["charges"])
    assert model.domain.target == card["target"]
    assert min(card["elements"].values()) >= 8
    size = sum(file.stat().st_size for file in shipped.shipped_folder(name).iterdir())
    assert size < 5e6
    for test in card["tests"]:
        assert test["model"]["h_mae_uEh"] < test["start"]["h_mae_uEh"] / LEAST[name]


def test_a_prediction_of_organic_is_near_the_fock_matrix_and_its_start_is_taken():
    level = helmol.load("organic").domain.level
    mole = dft.build_mole(ACETAMIDE, dft.level_from(level))
    mf = dft.mean_field(mole, dft.level_from(level))
    helmol.pyscf.attach(mf, "organic")
    mf.kernel()
    assert mf.converged
    assert mf.helmol_info.used
    prediction = helmol.load("organic").predict(mole)
    error = np.abs(prediction.fock - mf.get_fock()).mean()
    start = np.abs(mf.get_fock(dm=mf.init_guess_by_minao()) - mf.get_fock()).mean()
    assert error < start / 8
    assert error < 300e-6


def test_what_organic_has_not_learnt_is_refused_by_name():
    with pytest.raises(DomainError, match="Si"):
        helmol.load("organic").predict(
            dft.build_mole(
                Molecule([14, 1, 1, 1, 1], np.vstack([np.zeros(3), 1.6 * np.eye(4, 3) + [0, 0, 1]])),
                dft.LevelConfig(),
            )
        )


def test_a_folder_goes_before_a_name_and_a_wrong_name_names_the_right_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("organic") == shipped.shipped_folder("organic")
    (tmp_path / "organic").mkdir()
    # A folder without a model, of results for example, is no model.
    assert find_model("organic") == shipped.shipped_folder("organic")
    shutil.copytree(shipped.shipped_folder("organic"), tmp_path / "organic", dirs_exist_ok=True)
    assert find_model("organic").resolve() == tmp_path / "organic"
    with pytest.raises(InputError, match=r"comes with helmol .*organic"):
        find_model("organik")


def test_the_verb_shows_all_and_one(capsys, tmp_path):
    for words in (["models"], ["models", "organic", "--json", str(tmp_path / "m.json")]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "training molecules" in out
    assert "Br" in out
    assert '"organic"' in (tmp_path / "m.json").read_text()
    with pytest.raises(SystemExit) as stop:
        main(["models", "nothing"])
    assert stop.value.code == 1
    assert "there are elements, organic" in capsys.readouterr().err
