"""Make ``water_pbe.json`` with nothing but PySCF; run by hand when the numbers should change."""

import json
from pathlib import Path

import pyscf
from pyscf import dft, gto

ATOMS = "O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587"

if __name__ == "__main__":
    mf = dft.RKS(gto.M(atom=ATOMS, basis="def2-svp", verbose=0), xc="pbe")
    mf.conv_tol = 1e-12
    energy = mf.kernel()
    result = {
        "code": f"pyscf {pyscf.__version__}",
        "level": "RKS PBE/def2-SVP, grid level 3",
        "positions_angstrom": [[0, 0, 0], [0, 0.757, 0.587], [0, -0.757, 0.587]],
        "energy_Eh": energy,
        "mo_energy_Eh": mf.mo_energy.tolist(),
        "dipole_au": mf.dip_moment(unit="AU", verbose=0).tolist(),
    }
    Path(__file__).with_name("water_pbe.json").write_text(json.dumps(result, indent=1) + "\n")
