"""Make ``wb97x_d.json`` with nothing but Psi4; run by hand when the numbers should change."""

import json
from pathlib import Path

ATOMS = {
    "water": "O 0 0 0; H 0 0.757 0.587; H 0.1 -0.757 0.587",
    "water dimer": "O -1.551 -0.115 0; H -1.934 0.763 0; H -0.600 0.041 0;"
    "O 1.351 0.111 0; H 1.680 -0.374 -0.759; H 1.680 -0.374 0.759",
    "formamide": "C 0 0.42 0; O 1.197 0.238 0; N -0.935 -0.561 0;"
    "H -0.446 1.43 0; H -0.639 -1.524 0.02; H -1.914 -0.333 -0.01",
    "bromochlorofluoromethane": "C 0 0 0.4; F 1.28 0.05 0.82; Cl -0.85 1.42 0.92; Br 0.02 -0.1 -1.54;"
    "H -0.48 -0.9 0.78",
    "methanethiol": "C -1.16 0.02 0; S 0.66 -0.08 0; H 0.9 1.25 0.05; H -1.51 1.05 0; H -1.53 -0.48 0.9;"
    "H -1.53 -0.48 -0.9",
    "rare gases": "He 0 0 0; Ne 2 0 0; Ar 0 3 0; Kr 0 0 3.5; Xe 3.5 3.5 3.5",
    "ions": "H -3 0 0; Li 0 0 0; Na 3 0 0; Mg 0 3 0; Zn 0 0 3.2; I 3 3 3",
}
LABELLED = ("water",)
"""Molecules with the total energy and its gradient, not the empirical term alone."""

if __name__ == "__main__":
    import psi4
    from psi4.driver.procrouting.empirical_dispersion import EmpiricalDispersion

    psi4.core.be_quiet()
    psi4.set_options(
        {
            "basis": "def2-svp",
            "scf_type": "pk",
            "dft_radial_points": 99,
            "dft_spherical_points": 590,
            "e_convergence": 1e-10,
            "d_convergence": 1e-8,
        }
    )
    term, molecules = EmpiricalDispersion(name_hint="wb97x-d"), {}
    for name, atoms in ATOMS.items():
        rows = [row.strip() for row in atoms.split(";")]
        molecule = psi4.geometry("\n".join([*rows, "units angstrom", "no_com", "no_reorient", "symmetry c1"]))
        molecule.update_geometry()
        found = {
            "numbers": [int(molecule.Z(k)) for k in range(molecule.natom())],
            "positions_bohr": molecule.geometry().to_array().tolist(),
            "dispersion_Eh": term.compute_energy(molecule),
            "dispersion_gradient_au": term.compute_gradient(molecule).to_array().tolist(),
        }
        if name in LABELLED:
            gradient, wave = psi4.gradient("wb97x-d", molecule=molecule, return_wfn=True)
            assert psi4.variable("DISPERSION CORRECTION ENERGY") == found["dispersion_Eh"]
            found["energy_Eh"] = psi4.variable("CURRENT ENERGY")
            found["gradient_au"] = gradient.to_array().tolist()
        molecules[name] = found
    result = {
        "code": f"psi4 {psi4.__version__}",
        "level": "wB97X-D/def2-SVP, scf_type pk, grid (99, 590)",
        "molecules": molecules,
    }
    Path(__file__).with_name("wb97x_d.json").write_text(json.dumps(result, indent=1) + "\n")
