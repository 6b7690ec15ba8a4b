"""Measure every precision on an accelerator and write gpu.json and gpu.md beside this file.

python benchmarks/speed/gpu.py                          # on a machine with CUDA, minutes
python benchmarks/speed/gpu.py --device cpu --tiny      # a trial of the script anywhere, seconds

Needs helmol and torch alone: no PySCF, no ASE, no data.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from helmol.bench.accelerator import TINY, WORKLOADS, accelerator_table, as_markdown
from helmol.devices import resolve_device
from helmol.files import write_json, write_text


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small molecule and network")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the results")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = accelerator_table(
        torch.device(resolve_device(given.device)),
        workloads=TINY if given.tiny else WORKLOADS,
        repeats=given.repeats,
    )
    write_json(given.out / "gpu.json", found)
    write_text(given.out / "gpu.md", as_markdown(found))
    logging.getLogger("helmol.bench").info(as_markdown(found))


if __name__ == "__main__":
    main()
