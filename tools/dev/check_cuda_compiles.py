"""Compiles every CUDA source for sm_80 and sm_90 and throws the result away: the check for machines without a GPU.

    make cuda-compiles
    python tools/dev/check_cuda_compiles.py [--jobs 2] [--arch sm_120 ...] [--nvcc PATH]

The compiler is the one of ``build/nvcc``, which `make cuda-compiles` installs from wheels at the versions of
``requirements/lock-nvcc.txt``, whatever toolkit the machine has; --nvcc names another one. Exit status 0 if all
compile.

All sources go through nvcc as one translation unit: PyTorch's headers, which take nearly all of the time, are read once
for each architecture and once for the host, and two sources that define the same name differently (which a linker would
let pass) clash.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pcdet.utils.cuda_toolkit import WHEELS_HOME, release_of

NVCC = ROOT / "build/nvcc" / WHEELS_HOME / "bin/nvcc"
ARCHITECTURES = ("sm_80", "sm_90")
FLAGS = ("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC", "-Werror=all-warnings")
# Generated when torch itself is built with CUDA; the headers of a CPU-only torch include it but do not ship it.
MISSING_HEADER = "c10/cuda/impl/cuda_cmake_macros.h"


def include_flags(scratch: Path) -> list[str]:
    """Ours as ordinary headers, torch's as system headers (their warnings are not ours), with the missing one empty."""
    system = cpp_extension.include_paths()
    if not any((Path(path) / MISSING_HEADER).is_file() for path in system):
        stub = scratch / "include" / MISSING_HEADER
        stub.parent.mkdir(parents=True)
        stub.touch()
        system.append(str(scratch / "include"))
    return [f"-I{ROOT / 'pcdet/ops/include'}", *(f"-isystem={path}" for path in system)]


def environment(nvcc: Path) -> dict[str, str]:
    """This process's, with the parts of the compiler found beside it first, and neither flags nor headers for it."""
    others = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "CPATH", "CPLUS_INCLUDE_PATH")
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return kept | {"PATH": os.pathsep.join([str(nvcc.parent), os.environ.get("PATH", os.defpath)])}


def compile_all(nvcc: Path, sources: list[Path], architectures: Sequence[str], jobs: int) -> CompletedProcess:
    """Runs nvcc over the sources, for several architectures at a time."""
    codes = [f"-gencode=arch={arch.replace('sm_', 'compute_')},code={arch}" for arch in architectures]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        everything = scratch / "everything.cu"
        everything.write_text("".join(f'#include "{source}"\n' for source in sources))
        command = [nvcc, *FLAGS, *include_flags(scratch), *codes, f"--threads={jobs}"]
        command += ["-c", everything, "-o", scratch / "everything.o"]
        return subprocess.run(command, capture_output=True, text=True, env=environment(nvcc))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="architectures at a time")
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, help="default: sm_80 sm_90")
    parser.add_argument("--nvcc", type=Path, default=NVCC, help="default: the one of build/nvcc")
    args = parser.parse_args(argv)
    if not args.nvcc.is_file():
        parser.error(f"there is no nvcc at {args.nvcc}: make cuda-compiles installs the one of build/nvcc")

    print(f"nvcc {release_of(args.nvcc.parent.parent)}: {args.nvcc}", flush=True)
    sources = sorted(ROOT.glob("pcdet/ops/**/*.cu"))
    start = time.perf_counter()
    done = compile_all(args.nvcc, sources, args.arch, args.jobs)
    verdict = "compile" if done.returncode == 0 else "DO NOT COMPILE"
    print(f"{len(sources)} CUDA sources {verdict} for {', '.join(args.arch)} ({time.perf_counter() - start:.0f} s)")
    print(done.stdout + done.stderr, end="")
    return min(done.returncode, 1)


if __name__ == "__main__":
    sys.exit(main())
