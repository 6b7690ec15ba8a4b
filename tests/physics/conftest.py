"""Fixtures of the physics tests."""

import pytest
import torch
from physics_tools import make_network


@pytest.fixture(scope="session", params=["float32", "float64"])
def network(request):
    """A network with random weights and statistics of random targets."""
    return make_network(getattr(torch, request.param))
