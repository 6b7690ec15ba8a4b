"""The demo's judgement is honest, its folder is its own, its report says what was measured."""

import json

import pytest
from matplotlib.figure import Figure

from helmol.demo import DemoConfig
from helmol.demo.report import FIGURES, write_report
from helmol.demo.run import Stopwatch, check_folder, judge
from helmol.errors import InputError

EVALUATION = {
    "n_molecules": 60,
    "h_mae_uEh": 20.0,
    "parameters": 1000,
    "target": "fock-minus-minao",
    "gap_mae_uEh": None,
    "psi_similarity": 0.9,
    "baselines": {"minao": {"h_mae_uEh": 18000.0}},
}


def guess(**model):
    start = {"cycles": 9, "fock_builds": 10, "seconds": 1.0, "energy_Eh": -76.0, "converged": True}
    return {"minao": start, "model": {**start, "cycles": 6, **model}, "fell_back": False}


def verdicts(evaluation=EVALUATION, found=None):
    return [bar["passed"] for bar in judge(evaluation, found or guess())]


def test_a_good_result_clears_every_bar():
    assert verdicts() == [True] * 4


@pytest.mark.parametrize(
    ("evaluation", "found", "missed"),
    [
        ({**EVALUATION, "h_mae_uEh": 31.0}, guess(), 0),
        ({**EVALUATION, "baselines": {"minao": {"h_mae_uEh": 1900.0}}}, guess(), 1),
        (EVALUATION, guess(cycles=9), 2),
        (EVALUATION, {**guess(), "fell_back": True}, 2),
        (EVALUATION, guess(energy_Eh=-76.0 + 2e-8), 3),
    ],
)
def test_each_bar_is_missed_alone(evaluation, found, missed):
    assert [k for k, passed in enumerate(verdicts(evaluation, found)) if not passed] == [missed]


def test_an_scf_that_did_not_converge_clears_nothing():
    assert verdicts(found=guess(converged=False))[2:] == [False, False]


def test_a_folder_is_claimed_once_and_only_for_the_same_settings(tmp_path):
    out = tmp_path / "demo"
    check_folder(DemoConfig(), out)
    check_folder(DemoConfig(workers=1), out)
    with pytest.raises(InputError, match="seed = 0, asked for is 1"):
        check_folder(DemoConfig(seed=1), out)


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match="not an empty folder"):
        check_folder(DemoConfig(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_seconds_add_up_over_interruptions(tmp_path):
    path = tmp_path / "seconds.json"

    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stopwatch(path, total=1)("labels", "labels", stopped)
    before = json.loads(path.read_text())["labels"]
    watch = Stopwatch(path, total=1)
    assert watch("labels", "labels", lambda: 7) == 7
    assert watch.total > before > 0


def test_the_report_shows_the_numbers_and_every_figure(tmp_path):
    for name in FIGURES:
        Figure().savefig(tmp_path / name)
    found = {**guess(), "remarks": ["NO BETTER THAN THE START 'minao'"]}
    result = {
        **EVALUATION,
        "evaluate": EVALUATION,
        "guess": found,
        "predict": {"flags": ["small gap"]},
        "bars": judge({**EVALUATION, "h_mae_uEh": 44.4}, found),
        "config": DemoConfig().model_dump(),
        "versions": {"helmol": "0"},
        "train": {"n_train": 220, "n_val": 20, "steps": 3, "seconds": 2.0},
    }
    write_report(tmp_path, result, {"labels": 1.5})
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "NOT CLEARED: error of the held-out Fock matrices." in text
    assert "44.4 µEh" in text
    assert "Target: fock-minus-minao." in text
    assert "| gap / µEh | - | - |" in text
    assert "| occupied orbitals, mean \\|cosine\\| | 0.9 | - |" in text  # no cell ends within a name
    assert "**NO BETTER THAN THE START 'minao'**" in text
    assert "<strong>the unseen geometry: small gap</strong>" in page
    # Published for the same molecule at the same level; of another level nothing is published.
    assert "HELM: 9.33; QHFlow: 4.93. Here 20." in text
    other = {**result, "config": {**result["config"], "xc": "b3lyp"}}
    write_report(tmp_path, other, {"labels": 1.5})
    assert "Published" not in (tmp_path / "report.md").read_text()
    assert all(f"]({name})" in text for name in FIGURES)
    assert page.count("data:image/png;base64,") == len(FIGURES)
