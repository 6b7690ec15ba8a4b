"""Fixtures of the training tests."""

import pytest

from toy_store import make_store


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """Path of a store of 24 made-up waters."""
    return make_store(tmp_path_factory.mktemp("toy") / "toy.h5")
