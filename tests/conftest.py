"""What all tests share: threads, and a random generator."""

import os

# One thread per test process, before any numerical library starts its pool.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Types and shapes of these rooms are checked at every call; before any of their modules is imported.
CHECKED = (
    "helmol.basis",
    "helmol.graph",
    "helmol.model",
    "helmol.properties",
    "helmol.target",
)
install_import_hook(CHECKED, "typechecking.check")

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("helmol", deadline=None)
hypothesis.settings.load_profile("helmol")


@pytest.fixture(autouse=True, scope="session")
def memory_as_usual():
    """Leave the memory of the tests' process to its C library, whichever verbs run in it."""
    from helmol import heap

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heap, "keep_freed_memory", lambda: False)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator with a fixed seed."""
    return np.random.default_rng(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes the tests of faults thorough: ``make stress``."""
    parser.addoption("--stress", action="store_true", help="thousands of damaged files, kills and races")


@pytest.fixture(scope="session")
def many(request: pytest.FixtureRequest):
    """Return how often to try something: few times as a rule, many times with ``--stress``."""
    return lambda few, thorough: thorough if request.config.getoption("--stress") else few
