"""Trainings that are killed, starved of disk space, cut short and run for long, and what must hold all the same.

``python -m soak --seconds 120`` in the folder above; ``make soak SECONDS=120`` from the repository's root.
"""

import os
import sys
from pathlib import Path

# One thread a process, set before numpy and torch are imported: a process with threads cannot be forked safely.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
