"""Values of basis functions kept on a grid: PySCF's energies and potentials, functions evaluated once."""

import numpy as np
import pytest
from pyscf import dft, gto
from pyscf.dft import numint

from helmol.dft import kept

LEVEL = 1
ATOMS = "C 0 0 -0.53; O 0.02 0 0.68; H 0 0.93 -1.11; H 0.05 -0.94 -1.1"
# So far away that it shares no points with the others.
FAR = ATOMS + "; Ne 0 0 15"


class Counting(kept.KeptOrbitals):
    """Counts the blocks that are evaluated."""

    n_blocks = 0

    def eval_ao(self, *arguments, **other):
        self.n_blocks += 1
        return super().eval_ao(*arguments, **other)


def field_of(method, xc="pbe", atoms=ATOMS):
    mole = gto.M(atom=atoms, basis="6-31g", verbose=0)
    mf = {"rks": dft.RKS, "uks": dft.UKS}[method](mole, xc=xc)
    mf.grids.level = LEVEL
    mf.grids.build(with_non0tab=True)
    return mf


def density_of(mf):
    """Return a density with its orbitals, the two spins different."""
    core = mf.get_hcore()
    energies, orbitals = mf.eig(
        np.array([core, core]) if isinstance(mf, dft.uks.UKS) else core, mf.get_ovlp()
    )
    occupations = mf.get_occ(energies, orbitals)
    if occupations.ndim == 2:
        occupations[1][occupations[1] > 0] *= np.linspace(0.5, 1, int((occupations[1] > 0).sum()))
    return mf.make_rdm1(orbitals, occupations)


def evaluate(integrator, mf, density):
    name = "nr_uks" if isinstance(mf, dft.uks.UKS) else "nr_rks"
    return getattr(integrator, name)(mf.mol, mf.grids, mf.xc, density)


@pytest.mark.parametrize("method", ["rks", "uks"])
@pytest.mark.parametrize(
    ("xc", "limit_mb"), [("lda,vwn", 1000), ("pbe", 1000), ("pbe", 2), ("pbe", 0), ("r2scan", 1000)]
)
def test_energy_and_potential_are_pyscfs(method, xc, limit_mb):
    mf = field_of(method, xc, FAR)
    density = density_of(mf)
    mine, n_blocks = Counting(mf.grids, limit_mb=limit_mb), []
    for _ in range(2):
        found, wanted = evaluate(mine, mf, density), evaluate(numint.NumInt(), mf, density)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-11)
        n_blocks.append(mine.n_blocks)
    assert mine.kept_mb <= limit_mb
    # What fits is evaluated once, what does not every time.
    missing = n_blocks[1] - n_blocks[0]
    assert {1000: missing == 0, 2: 0 < missing < n_blocks[0], 0: missing == n_blocks[0]}[limit_mb]


def test_what_does_not_reach_a_block_takes_no_memory():
    mf = field_of("rks", atoms=FAR)
    mine = kept.KeptOrbitals(mf.grids, limit_mb=1000)
    evaluate(mine, mf, density_of(mf))
    assert mine.kept_mb < 0.96 * 8e-6 * 4 * len(mf.grids.coords) * mf.mol.nao


def test_a_density_without_orbitals_is_left_to_pyscf():
    mf = field_of("rks")
    density = np.array(density_of(mf))
    mine = Counting(mf.grids, limit_mb=1000)
    found, wanted = evaluate(mine, mf, density), evaluate(numint.NumInt(), mf, density)
    np.testing.assert_allclose(found[2], wanted[2], rtol=0, atol=2e-11)
    n_blocks = mine.n_blocks
    evaluate(mine, mf, density)
    assert mine.n_blocks == n_blocks


@pytest.mark.parametrize("deriv", [0, 1, 2])
def test_blocks_for_everything_else_are_pyscfs(deriv):
    mf = field_of("rks", atoms=FAR)
    mine = Counting(mf.grids, limit_mb=1000)

    def values(integrator):
        found = list(integrator.block_loop(mf.mol, mf.grids, mf.mol.nao, deriv))
        orbitals = np.concatenate([block[0] for block in found], axis=1 if deriv else 0)
        weights, points = (np.concatenate([block[k] for block in found]) for k in (2, 3))
        # What has no weight need not have a value.
        return orbitals * np.sqrt(np.abs(weights))[:, None], weights, points

    class Copying(numint.NumInt):
        """The buffer of a block is written over by the next one."""

        def block_loop(self, *arguments, **other):
            for orbitals, *rest in super().block_loop(*arguments, **other):
                yield orbitals.copy(), *rest

    plain = values(Copying())
    for _ in range(2):
        for a, b in zip(values(mine), plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)
    # Kept for one order of derivatives, and others then as PySCF does.
    n_blocks = mine.n_blocks
    list(mine.block_loop(mf.mol, mf.grids, mf.mol.nao, 1 if deriv == 0 else 0))
    assert mine.n_blocks > n_blocks
    list(mine.block_loop(mf.mol, mf.grids, mf.mol.nao, deriv))
    assert mine.n_blocks > n_blocks


def test_a_grid_built_anew_is_noticed():
    mf = field_of("rks")
    density = density_of(mf)
    mine = kept.KeptOrbitals(mf.grids, limit_mb=1000)
    evaluate(mine, mf, density)
    mf.grids.level = 0
    mf.grids.build(with_non0tab=True)
    found, wanted = evaluate(mine, mf, density), evaluate(numint.NumInt(), mf, density)
    np.testing.assert_allclose(found[2], wanted[2], rtol=0, atol=2e-11)


def test_settings_of_the_functional_are_taken_over():
    mf = field_of("rks", "hse06")
    mf.omega = 0.3
    mine = kept.KeptOrbitals(mf.grids, limit_mb=1000, like=mf._numint)
    assert mine.omega == 0.3
    density = density_of(mf)
    assert evaluate(mine, mf, density)[1] == pytest.approx(evaluate(mf._numint, mf, density)[1], abs=1e-11)
