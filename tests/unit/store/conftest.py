"""Fixtures of the store's tests."""

from __future__ import annotations

import pytest

from helmol.store import Store
from store_samples import BASIS, LEVEL


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


@pytest.fixture
def store(path):
    with Store.create(path, level=LEVEL, basis=BASIS) as opened:
        yield opened
