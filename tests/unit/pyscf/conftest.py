"""Water whose SCF is known, and a model that knows it too."""

from __future__ import annotations

import pytest

from scf_truth import WATER, Truth, answer


@pytest.fixture(scope="module")
def water() -> Truth:
    return Truth(WATER)


@pytest.fixture
def known(water: Truth, monkeypatch: pytest.MonkeyPatch) -> Truth:
    answer(monkeypatch, water, water.fock)
    return water
