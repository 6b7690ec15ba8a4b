"""Block tables: complete, norm-preserving, symmetric where they should be, without padding."""

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from helmol.basis import diagonal_table, pair_table, signature_nao, wigner_d

HYDROGEN, OXYGEN = (0, 0, 1), (0, 0, 0, 1, 1, 2)
SIGNATURES = [(0,), (1,), HYDROGEN, OXYGEN, (0, 0, 1, 2, 2, 3), (0, 1, 4)]


@pytest.mark.parametrize("first", SIGNATURES)
@pytest.mark.parametrize("second", SIGNATURES)
def test_pair_table_keeps_every_block_and_its_norm(first, second, rng):
    table = pair_table(first, second)
    assert table.dim == signature_nao(first) * signature_nao(second)
    blocks = rng.normal(size=(3, table.rows, table.columns))
    irreps = table.to_irreps(blocks)
    np.testing.assert_allclose(table.to_blocks(irreps), blocks, atol=1e-13)
    np.testing.assert_allclose(np.square(irreps).sum(1), np.square(blocks).sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_diagonal_table_keeps_every_symmetric_block_and_its_norm(signature, rng):
    table, n = diagonal_table(signature), signature_nao(signature)
    assert table.dim == n * (n + 1) // 2
    blocks = rng.normal(size=(3, n, n))
    blocks = blocks + blocks.transpose(0, 2, 1)
    irreps = table.to_irreps(blocks)
    np.testing.assert_allclose(table.to_blocks(irreps), blocks, atol=1e-13)
    np.testing.assert_allclose(np.square(irreps).sum(1), np.square(blocks).sum((1, 2)), rtol=1e-12)


def test_any_irreps_give_a_symmetric_diagonal_block(rng):
    table = diagonal_table(OXYGEN)
    blocks = table.to_blocks(rng.normal(size=(2, table.dim)))
    np.testing.assert_allclose(blocks, blocks.transpose(0, 2, 1), atol=1e-14)


def test_a_shell_with_itself_has_even_degrees_only():
    table = diagonal_table((0, 1, 2))
    odd = [pair for l, pairs in enumerate(table.shell_pairs) if l % 2 for pair in pairs if pair[0] == pair[1]]
    assert odd == []


def turned_irreps(table, irreps, rotation):
    parts, start = [], 0
    for l, count in enumerate(table.counts):
        stop = start + (2 * l + 1) * count
        part = irreps[:, start:stop].reshape(len(irreps), 2 * l + 1, count)
        parts.append(np.einsum("ij,njc->nic", wigner_d(l, rotation), part).reshape(len(irreps), -1))
        start = stop
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(("first", "second"), [(HYDROGEN, OXYGEN), (OXYGEN, OXYGEN), ((0, 1, 4), (3, 2))])
def test_irreps_turn_as_irreps(first, second, rng):
    table, rotation = pair_table(first, second), Rotation.random(random_state=3).as_matrix()
    blocks = rng.normal(size=(2, table.rows, table.columns))
    left = block_diag(*[wigner_d(l, rotation) for l in first])
    right = block_diag(*[wigner_d(l, rotation) for l in second])
    expected = turned_irreps(table, table.to_irreps(blocks), rotation)
    np.testing.assert_allclose(table.to_irreps(left @ blocks @ right.T), expected, atol=1e-11)
    # A p shell left in (x, y, z) order must be caught.
    wrong = block_diag(*[np.roll(wigner_d(l, rotation), l == 1, axis=0) for l in first])
    assert np.abs(table.to_irreps(wrong @ blocks @ right.T) - expected).max() > 1e-2
