"""Compiles every CUDA source for sm_80 and sm_90 and throws the result away: the check for machines without a GPU.

All sources go through nvcc as one translation unit for each architecture: PyTorch's headers, which take nearly all of
the time, are read once, and two sources that define the same name differently (which a linker would let pass) clash.

python tools/dev/check_cuda_compiles.py [--jobs 2] [--if-nvcc] [FILE.cu ...]. Exit status 0 if all compile; without nvcc
1, or 0 with --if-nvcc.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("sm_80", "sm_90")
FLAGS = ("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC", "-Werror=all-warnings")
# Generated when torch itself is built with CUDA; the headers of a CPU-only torch include it but do not ship it.
MISSING_HEADER = "c10/cuda/impl/cuda_cmake_macros.h"


def find_nvcc() -> str | None:
    """The nvcc of CUDA_HOME, of the PATH, or of its usual place."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [f"{home}/bin/nvcc" if home else None, shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    return next((place for place in places if place and Path(place).is_file()), None)


def include_flags(scratch: Path) -> list[str]:
    """Ours as ordinary headers, torch's as system headers (their warnings are not ours), with the missing one empty."""
    system = cpp_extension.include_paths()
    if not any((Path(path) / MISSING_HEADER).is_file() for path in system):
        stub = scratch / "include" / MISSING_HEADER
        stub.parent.mkdir(parents=True)
        stub.touch()
        system.append(str(scratch / "include"))
    return [f"-I{ROOT / 'pcdet/ops/include'}", *(f"-isystem={path}" for path in system)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, help="default: every .cu below pcdet/ops")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--if-nvcc", action="store_true", help="succeed without nvcc, which then checks nothing")
    args = parser.parse_args()

    nvcc = find_nvcc()
    if nvcc is None:
        print("nvcc not found (CUDA_HOME, PATH, /usr/local/cuda): no CUDA source was compiled")
        return 0 if args.if_nvcc else 1
    sources = args.sources or sorted(ROOT.glob("pcdet/ops/**/*.cu"))
    failed = False
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(args.jobs) as pool:
        scratch = Path(name)
        everything = scratch / "everything.cu"
        everything.write_text("".join(f'#include "{source.resolve()}"\n' for source in sources))
        command = [nvcc, *FLAGS, *include_flags(scratch), "-c", str(everything)]

        def compile_for(arch: str) -> tuple[str, float, subprocess.CompletedProcess]:
            start = time.perf_counter()
            done = subprocess.run(
                [*command, f"-arch={arch}", "-o", str(scratch / f"{arch}.o")], capture_output=True, text=True
            )
            return arch, time.perf_counter() - start, done

        for arch, seconds, done in pool.map(compile_for, ARCHITECTURES):
            verdict = "compile" if done.returncode == 0 else "DO NOT COMPILE"
            print(f"{len(sources)} CUDA sources {verdict} for {arch} ({seconds:.0f} s, {nvcc})")
            print(done.stdout + done.stderr, end="", flush=True)
            failed |= done.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
