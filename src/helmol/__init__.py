"""helmol: machine-learnt molecular Kohn–Sham Hamiltonians."""

__version__ = "0.1.0"
