"""Let a PySCF SCF start from a learnt Fock matrix, and measure what that brings.

Knows: PySCF's SCF objects. Does not know: how the network works. The start is never trusted
blindly: see :func:`attach`.
"""

# First: it loads PySCF's libraries with kernels that fit the processor.
from helmol import dft as dft

# isort: split
from helmol.dft.cycles import CyclesInfo, accelerate
from helmol.predict.exports import write_chkfile, write_cube
from helmol.pyscf.compare import CHEAP, compare_starts
from helmol.pyscf.molden import write_molden
from helmol.pyscf.start import StartInfo, attach

__all__ = [
    "CHEAP",
    "CyclesInfo",
    "StartInfo",
    "accelerate",
    "attach",
    "compare_starts",
    "write_chkfile",
    "write_cube",
    "write_molden",
]
