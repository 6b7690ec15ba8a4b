"""A thousand equal warnings are one line and a count; different ones are all there."""

import logging

import pytest

from helmol.repeats import collected, filtered, in_one_call


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def place():
    log, handler = logging.getLogger("helmol.test_repeats"), Lines()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield log, handler
    log.removeHandler(handler)
    log.propagate = True


def test_a_thousand_equal_warnings_are_one_line_and_a_count(place):
    log, handler = place
    with filtered(handler):
        for _ in range(1000):
            log.warning("no charge is stated: 0 is taken")
            log.info("step")
        assert handler.lines.count("no charge is stated: 0 is taken") == 1
        assert handler.lines.count("step") == 1000
    assert handler.lines[-1] == "999 more warnings like: no charge is stated: 0 is taken"
    handler.lines.clear()
    log.warning("no charge is stated: 0 is taken")  # the filter is gone
    assert handler.lines == ["no charge is stated: 0 is taken"]


def test_warnings_that_differ_in_numbers_and_names_are_one_kind(place):
    log, handler = place
    with filtered(handler):
        for k in range(50):
            log.warning("left out %d of %d directions of %r (smallest %.2g)", k, 100 + k, f"w{k}", 1e-7 * k)
            log.warning("%s", f"sample 'x{k}' has no overlap")
        log.warning("the disk is nearly full")
    assert sum(line.startswith("left out") for line in handler.lines) == 3
    assert sum(line.startswith("sample") for line in handler.lines) == 3
    assert "the disk is nearly full" in handler.lines
    assert [line for line in handler.lines if "more warnings" in line] == [
        "47 more warnings like: left out 3 of 103 directions of 'w3' (smallest 3e-07)",
        "47 more warnings like: sample 'x3' has no overlap",
    ]


def test_what_a_worker_warns_of_is_handed_over_and_not_written(caplog):
    log = logging.getLogger("helmol.test_repeats")
    with collected() as texts:
        log.warning("computing on the %s", "CPU")
        log.info("nothing")
    assert texts == ["computing on the CPU"]
    assert not caplog.records
    log.warning("as before")
    assert [record.getMessage() for record in caplog.records] == ["as before"]


@in_one_call()
def work(n):
    log = logging.getLogger("helmol.test_repeats")
    for k in range(n):
        log.warning("molecule %d has no charge", k)
        logging.getLogger("elsewhere").warning("molecule %d has no charge", k)


def test_a_program_that_calls_helmol_gets_one_line_and_a_count_from_each_call(capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logging.getLogger("helmol"), "handlers", [])
    for _ in range(2):  # the second call begins anew
        work(20)
        lines = capsys.readouterr().err.splitlines()
        assert sum("has no charge" in line for line in lines) == 3 + 1 + 20
        assert lines[-1] == "17 more warnings like: molecule 3 has no charge"
    mine = Lines()
    monkeypatch.setattr(root, "handlers", [mine])
    with filtered(mine):  # as the command line does
        work(20)
        work(20)
        assert not any("more warnings" in line for line in mine.lines)
    assert mine.lines[-1].startswith("37 more warnings")
    assert not mine.filters
