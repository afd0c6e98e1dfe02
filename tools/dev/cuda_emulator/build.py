"""Builds the CUDA kernels of pcdet/ops for the CPU: one shared library a mode, which the tests load beside the ops.

    python tools/dev/cuda_emulator/build.py --mode plain [--jobs 2]

Prints the library's path, build/cuda_emulator/MODE/libcuda_emulator.so. Needs g++ 11 or later and ninja. A second call
compiles what has changed. The modes:

    plain      as the CPU ops are compiled: products and sums are rounded one by one
    fused      multiply and add are fused, as nvcc does; needs a processor with AVX2 and FMA
    sanitized  AddressSanitizer and UndefinedBehaviorSanitizer, which must be loaded ahead of Python
    watched    every memory access of a kernel is looked at: races, bounds, memory that nobody wrote, host memory
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE))

from translate import translate_tree, write_if_changed

SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-sanitize=vptr -fno-omit-frame-pointer"
# Flags of all sources, and those that kernels get besides.
MODES = {
    "plain": ("-O1 -ffp-contract=off", ""),
    "fused": ("-O1 -ffp-contract=fast -mfma -mavx2", ""),
    "sanitized": (f"-O1 -g1 -ffp-contract=off {SANITIZERS}", ""),
    "watched": ("-O1 -g1 -ffp-contract=off", "-fsanitize=thread --param tsan-instrument-func-entry-exit=0"),
}
# Into how many translation units the kernels are joined: one for each of two cores.
KERNEL_UNITS = 2


def flags_of(mode: str) -> tuple[str, str]:
    """Mode -> the flags of every source, and those that kernels get besides."""
    common, kernel = MODES[mode]
    watched = "-DCUDA_EMULATOR_WATCHED " if mode == "watched" else ""
    return f"-std=c++20 -fPIC -fvisibility=hidden -w {watched}{common}", kernel


def runtime_sources(mode: str) -> list[Path]:
    """Mode -> the sources of the runtime, which need no torch."""
    memory = "watched" if mode == "watched" else "unwatched"
    return [*sorted((HERE / "runtime").glob("*.cpp")), *sorted((HERE / "runtime" / memory).glob("*.cpp"))]


def write_units(sources: list[Path], folder: Path, name: str, count: int) -> list[Path]:
    """Sources -> ``count`` translation units of about the same size that include them."""
    units: list[list[Path]] = [[] for _ in range(count)]
    for path in sorted(sources, key=lambda path: -path.stat().st_size):
        min(units, key=lambda unit: sum(member.stat().st_size for member in unit)).append(path)
    written = []
    for i, unit in enumerate(units):
        written.append(folder / f"{name}_{i}.cpp")
        write_if_changed(written[-1], "".join(f'#include "{path}"\n' for path in unit))
    return written


def ninja_file(mode: str, out: Path, kernels: list[Path]) -> str:
    """Mode, folder and translated kernels -> the build as ninja reads it."""
    common, kernel = flags_of(mode)
    torch_home = Path(torch.__file__).parent
    torch_flags = f"-isystem {torch_home}/include -isystem {torch_home}/include/torch/csrc/api/include"
    prelude = out / "prelude.h"
    write_if_changed(prelude, f'#include "{HERE}/include/cuda_emulator/torch.h"\n')
    lines = [
        f"common = {common} -I{HERE}/include",
        f"torch = {torch_flags}",
        "vocabulary = cuda_emulator/cuda.h",
        f"kernel = $torch -I{out}/translated/include {kernel}",
        "rule prelude",
        "  command = g++ $common $kernel -MMD -MF $out.d -x c++-header $in -o $out",
        "  depfile = $out.d",
        "rule kernels",
        f"  command = g++ $common $kernel -MMD -MF $out.d -include {prelude} -include $vocabulary -c $in -o $out",
        "  depfile = $out.d",
        "rule device",
        "  command = g++ $common $torch -MMD -MF $out.d $prelude -c $in -o $out",
        "  depfile = $out.d",
        "rule runtime",
        "  command = g++ $common -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "rule link",
        f"  command = g++ -shared $common -Wl,-z,defs $in -o $out -L{torch_home}/lib -lc10 -ltorch_cpu -ltorch -ldl",
        f"build {prelude}.gch: prelude {prelude}",
    ]
    objects = []
    # The runtime first: of an inline function that several objects hold, the linker keeps the first, and the watch must
    # not watch itself.
    for rule, sources in (
        ("runtime", write_units(runtime_sources(mode), out, "runtime", 1)),
        ("device", sorted((HERE / "device").glob("*.cpp"))),
        ("kernels", write_units(kernels, out, "kernels", KERNEL_UNITS)),
    ):
        for source in sources:
            objects.append(out / "objects" / rule / f"{source.stem}.o")
            # Precompiled headers serve only sources that are compiled with the same flags.
            shares_prelude = rule == "kernels" or (rule == "device" and not kernel)
            lines.append(f"build {objects[-1]}: {rule} {source}" + (f" | {prelude}.gch" if shares_prelude else ""))
            if rule == "device" and shares_prelude:
                lines.append(f"  prelude = -include {prelude}")
    lines.append(f"build {out}/libcuda_emulator.so: link {' '.join(map(str, objects))}")
    return "\n".join(lines) + "\n"


def build(mode: str, jobs: int, out: Path) -> Path:
    """Builds a mode below ``out`` -> the library. Errors: SystemExit where a tool is missing or a source is wrong."""
    path = f"{sysconfig.get_path('scripts')}:/usr/local/bin:/usr/bin:/bin"
    ninja = shutil.which("ninja") or shutil.which("ninja", path=path)
    if ninja is None or shutil.which("g++") is None:
        raise SystemExit("the emulator needs g++ and ninja; make setup installs ninja")
    try:
        kernels = translate_tree(ROOT / "pcdet/ops", out / "translated")
    except ValueError as error:
        raise SystemExit(str(error)) from error
    write_if_changed(out / "build.ninja", ninja_file(mode, out, kernels))
    done = subprocess.run([ninja, "-C", str(out), "-j", str(jobs), "--quiet"], stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"the emulator's library was not built (mode {mode})")
    return out / "libcuda_emulator.so"


def compile_program(mode: str, folder: Path, out: Path) -> Path:
    """A folder's kernels (.cu) and host sources (.cpp) with the runtime, without torch -> the program, below ``out``.

    Raises subprocess.CalledProcessError where a source is wrong.
    """
    common, kernel = flags_of(mode)
    kernels = translate_tree(folder, out / "translated")
    folders = [f"-I{HERE}/include", f"-I{folder}"]
    parts = {
        "runtime": (write_units(runtime_sources(mode), out, "runtime", 1), []),
        "host": (write_units(sorted(folder.glob("*.cpp")), out, "host", 1), []),
        "kernels": (write_units(kernels, out, "kernels", 1), [*kernel.split(), "-include", "cuda_emulator/cuda.h"]),
    }
    running, objects = [], []
    for part, (files, flags) in parts.items():
        objects.append(out / f"{part}.o")
        command = ["g++", *common.split(), *folders, *flags, "-c", *files, "-o", objects[-1]]
        running.append((command, subprocess.Popen(command)))
    for command, process in running:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)
    subprocess.run(["g++", *common.split(), *objects, "-o", out / "program", "-ldl"], check=True)
    return out / "program"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="plain", choices=MODES)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "build/cuda_emulator", help="a folder for all modes")
    args = parser.parse_args()
    print(build(args.mode, args.jobs, args.out.resolve() / args.mode))


if __name__ == "__main__":
    main()
