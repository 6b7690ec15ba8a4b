"""Types and shapes of the rooms with annotated arrays are checked while tests run."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from helmol import basis, graph, properties


@pytest.mark.parametrize(
    "call",
    [
        lambda: properties.density(np.eye(3), np.ones(2)),
        lambda: properties.residual(np.eye(3), np.ones((2, 3, 3)), np.eye(3)),
        lambda: basis.to_house(np.ones((2, 3)), [1], "pyscf"),
        lambda: basis.pair_table((0,), (1,)).to_blocks(np.ones((4, 2))),
        lambda: graph.frames.smooth_cutoff(torch.ones(2, 2)),
        lambda: graph.EdgeGeometry(1, torch.zeros(2, 3, dtype=torch.long), *[torch.ones(2)] * 6),
    ],
)
def test_a_wrong_shape_is_seen(call):
    with pytest.raises(TypeCheckError):
        call()


def test_a_wrong_kind_of_number_is_seen():
    with pytest.raises(TypeCheckError):
        properties.density(np.eye(3, dtype=np.float32), np.ones(3))


def test_nothing_is_checked_elsewhere():
    program = (
        "import sys, numpy, helmol.graph, helmol.properties as p; assert 'jaxtyping' not in sys.modules; "
        "p.density_error(numpy.eye(2), numpy.ones((1, 2)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
