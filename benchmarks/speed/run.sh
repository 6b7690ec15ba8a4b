#!/usr/bin/env bash
# Remake the speed tables: one JSON file per workload, one CPU thread.
set -euo pipefail
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
helmol bench --case uracil-4 --channels 64 --json L4_C64.json
helmol bench --case uracil-4 --channels 128 --json L4_C128.json
helmol bench --case uracil-4 --channels 128 --checkpoint --json L4_C128_checkpoint.json
helmol bench --case uracil-4 --channels 64 --lmax 6 --json L6_C64.json
helmol bench --case uracil-4 --channels 128 --lmax 6 --repeats 3 --json L6_C128.json
helmol bench --case uracil-4 --channels 128 --lmax 6 --checkpoint --repeats 3 --json L6_C128_checkpoint.json
