"""Times the reading of info files of nuScenes' size, and measures the memory that it and the infos take.

    python tools/benchmarks/bm_nuscenes_infos.py [--frames 28130] [--json FILE]

Infos are simulated: nine sweeps and 34 objects a frame, as in nuScenes' training split. Each form of the file is read
in a process of its own: as this project writes it, and as OpenPCDet does (``pickle.dump``). Beside the wall clock
stands the CPU time, which is the figure to compare on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

import numpy as np
from _nuscenes import info

from pcdet.datasets.nuscenes.info_checks import check_infos
from pcdet.datasets.nuscenes.info_store import InfoStore
from pcdet.utils import safe_pickle

FORMS = ("ours", "OpenPCDet's")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=28_130, help="of nuScenes' training split by default")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    return parser.parse_args()


def write(path: Path, form: str, frames: int) -> None:
    rng = np.random.default_rng(0)
    some = pickle.dumps([info(rng, frame, frames) for frame in range(min(frames, 200))])
    infos = [frame for _ in range(-(-frames // 200)) for frame in pickle.loads(some)][:frames]  # nothing is shared
    if form == "ours":
        safe_pickle.dump(infos, path)
    else:
        path.write_bytes(pickle.dumps(infos, protocol=4))


def read(path: Path) -> dict[str, float]:
    """Seconds of wall clock and CPU for reading, checking and packing; MB of memory."""
    figures, content, before = {"file_mb": path.stat().st_size / 1e6}, None, _peak_mb()
    for name in ("read", "check", "pack"):
        wall, cpu = time.perf_counter(), time.process_time()
        if name == "read":
            content = safe_pickle.load(path)
            figures["peak_mb"] = _peak_mb() - before
        elif name == "check":
            check_infos(content, path, num_sweeps=9, velocity=True)
        else:
            figures["packed_mb"] = InfoStore(content).nbytes / 1e6
        figures[f"{name}_s"], figures[f"{name}_cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
    return figures


def _peak_mb() -> float:
    """The most memory that this process has had; unlike ``ru_maxrss``, not what it has from the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    args = parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python", end=" ")
    print(f"{platform.python_version()}, numpy {np.__version__}; {args.frames} frames")
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            path = Path(folder) / f"{FORMS.index(form)}.pkl"
            writer = [sys.executable, __file__, "--frames", str(args.frames)]
            write(path, form, args.frames)
            done = subprocess.run([*writer, "--read", str(path)], capture_output=True, text=True, check=True)
            rows[form] = json.loads(done.stdout)
            print(f"{form:12s}", "  ".join(f"{key} {value:.1f}" for key, value in rows[form].items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"command": sys.argv, "figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
