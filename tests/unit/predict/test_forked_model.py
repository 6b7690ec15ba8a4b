"""A model goes on working in forked children, where the threads of its parent are not."""

import os
import subprocess
import sys

import numpy as np
import pytest

import toy_store
from forked import together
from helmol.model import ModelConfig, build, predict_fock
from helmol.target import Domain
from toy_store import BASIS, LEVEL, TINY, toy_samples


@pytest.fixture(scope="module")
def network():
    return build(ModelConfig(**TINY), Domain(LEVEL, BASIS, "fock-minus-minao", (0,), (0,)))


def predicted(network, n=3):
    samples = toy_samples(n)
    matrices = predict_fock(network, [s.molecule for s in samples], [s.matrices.known for s in samples])
    return [matrix.tolist() for matrix in matrices]


def test_children_answer_as_their_parent(network):
    here = predicted(network)
    for outcome in together([lambda: predicted(network)] * 2):
        assert np.allclose(outcome["ok"], here, rtol=0, atol=1e-6)


MANY_THREADS = """
import os, sys, time
sys.path.insert(0, {tests!r})
import numpy as np
import torch
torch.set_num_threads(3)
from helmol import dft
from helmol.model import ModelConfig, build, predict_fock
from helmol.system import Molecule
from helmol.target import Domain
from pyscf import lib
from toy_store import BASIS, LEVEL, toy_samples
lib.num_threads(3)
network = build(ModelConfig(channels=16, n_layers=1), Domain(LEVEL, BASIS, "fock-minus-minao", (0,), (0,)))
samples = toy_samples(40)
water = Molecule([8, 1, 1], [[0, 0, 0.1], [0, 1.43, -0.98], [0, -1.43, -0.98]])
level = dft.LevelConfig(xc="pbe", basis="def2-svp", grid_level=0)
def work():
    mole = dft.build_mole(water, level)
    overlap, fock = dft.overlap(mole), dft.reference_fock(mole, level, "minao")
    found = predict_fock(network, [s.molecule for s in samples], [s.matrices.known for s in samples])
    return [overlap, fock, *found]
here = work()
child = os.fork()
if child == 0:
    there = work()
    same = all(np.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(here, there, strict=True))
    os._exit(0 if same else 3)
end = time.monotonic() + 100
while time.monotonic() < end:
    process, status = os.waitpid(child, os.WNOHANG)
    if process:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, 9)
sys.exit(4)
"""


def test_threads_of_the_parent_are_not_waited_for():
    """With several threads torch, PySCF and the kernels' pool would wait for ever in the child."""
    code = MANY_THREADS.format(tests=toy_store.__file__.rpartition("/")[0])
    environment = {"OMP_NUM_THREADS": "3", "MPLBACKEND": "agg"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        check=False,
        timeout=200,
    )
    assert run.returncode == 0
