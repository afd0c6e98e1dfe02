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
import os
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
    "fused": ("-O1 -ffp-contract=off", "-ffp-contract=fast -mfma -mavx2"),
    "sanitized": (f"-O1 -g1 -ffp-contract=off {SANITIZERS}", ""),
    "watched": ("-O1 -ffp-contract=off", "-g1 -fsanitize=thread --param tsan-instrument-func-entry-exit=0"),
}
# Into how many translation units the kernels are joined: one for each of two cores.
KERNEL_UNITS = 2
RULES = """rule compile
  command = g++ $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = g++ -shared $flags -Wl,-z,defs $in -o $out $libraries
"""


def flags_of(mode: str) -> tuple[str, str]:
    """Mode -> the flags of every source, and those that kernels get besides."""
    common, kernel = MODES[mode]
    return f"-std=c++20 -fPIC -fvisibility=hidden -w -I{HERE}/include {common}", kernel


def torch_flags() -> str:
    """Where torch's headers are; their warnings are not ours."""
    home = Path(torch.__file__).parent / "include"
    return f"-isystem {home} -isystem {home}/torch/csrc/api/include"


def runtime_sources(mode: str) -> list[Path]:
    """Mode -> the sources of the runtime, which need no torch."""
    memory = "watched" if mode == "watched" else "unwatched"
    return [*sorted((HERE / "runtime").glob("*.cpp")), *sorted((HERE / "runtime" / memory).glob("*.cpp"))]


def runtime_flags(mode: str) -> str:
    """Mode -> what the runtime is compiled with besides."""
    return "-DCUDA_EMULATOR_WATCHED" if mode == "watched" else ""


def effort(source: Path) -> int:
    """About how long a source compiles: its templates, which are compiled for every type, count and not its size."""
    return 1 + source.read_text().count("template <")


def write_units(sources: list[Path], folder: Path, name: str, count: int) -> list[Path]:
    """Sources -> ``count`` translation units of about the same effort that include them."""
    units: list[list[Path]] = [[] for _ in range(count)]
    for path in sorted(sources, key=effort, reverse=True):
        min(units, key=lambda unit: sum(map(effort, unit))).append(path)
    written = []
    for i, unit in enumerate(units):
        written.append(folder / f"{name}_{i}.cpp")
        write_if_changed(written[-1], "".join(f'#include "{path}"\n' for path in unit))
    return written


def compiling(source: Path, target: Path, flags: str, needs: Path | None = None) -> str:
    """A statement for ninja."""
    return f"build {target}: compile {source}{f' | {needs}' if needs else ''}\n  flags = {flags}\n"


def prelude_of(flags: str, folder: Path) -> tuple[Path, str]:
    """Torch's headers, precompiled with these flags, which must be those of its users -> the header, the statement."""
    header = folder / "prelude.h"
    write_if_changed(header, f'#include "{HERE}/include/cuda_emulator/torch.h"\n')
    return header, compiling(header, Path(f"{header}.gch"), f"{flags} -x c++-header")


def device_statements(common: str, folder: Path) -> tuple[str, list[Path], Path]:
    """The PyTorch device, compiled in ``folder`` -> statements, objects, its prelude."""
    flags = f"{common} {torch_flags()}"
    prelude, text = prelude_of(flags, folder)
    objects = []
    for source in sorted((HERE / "device").glob("*.cpp")):
        objects.append(folder / f"{source.stem}.o")
        text += compiling(source, objects[-1], f"{flags} -include {prelude}", Path(f"{prelude}.gch"))
    return text, objects, prelude


def library_statements(mode: str, out: Path, kernels: list[Path], device: list[Path], prelude: Path | None) -> str:
    """Runtime and kernels of a mode, and the library; without a prelude the kernels get one of their own."""
    common, kernel = flags_of(mode)
    (runtime,) = write_units(runtime_sources(mode), out, "runtime", 1)
    text = compiling(runtime, out / "runtime.o", f"{common} {runtime_flags(mode)}")
    flags = f"{common} {torch_flags()} {kernel}".rstrip()
    if prelude is None:
        prelude, statement = prelude_of(flags, out)
        text += statement
    flags += f" -include {prelude} -include cuda_emulator/cuda.h -I{out}/translated/include"
    units = write_units(kernels, out, "kernels", KERNEL_UNITS)
    for unit in units:
        text += compiling(unit, unit.with_suffix(".o"), flags, Path(f"{prelude}.gch"))
    # The runtime first: of an inline function that several objects hold, the linker keeps the first, and the watch must
    # not watch itself.
    objects = [out / "runtime.o", *device, *(unit.with_suffix(".o") for unit in units)]
    text += f"build {out}/libcuda_emulator.so: link {' '.join(map(str, objects))}\n  flags = {common}\n"
    return text + f"  libraries = -L{Path(torch.__file__).parent}/lib -lc10 -ltorch_cpu -ltorch -ldl\n"


def run_ninja(folder: Path, statements: str, jobs: int) -> None:
    """Builds what the statements say. Errors: SystemExit where a tool is missing or a source is wrong."""
    # The environment's own first: another version would begin its log, hence the build, anew.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    ninja = shutil.which("ninja", path=path)
    if ninja is None or shutil.which("g++") is None:
        raise SystemExit("the emulator needs g++ and ninja; make setup installs ninja")
    write_if_changed(folder / "build.ninja", RULES + statements)
    done = subprocess.run([ninja, "-C", str(folder), "-j", str(jobs), "--quiet"], stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"the emulator was not built in {folder}")


def build(mode: str, jobs: int, out: Path) -> Path:
    """Builds a mode in a folder of ``out`` -> the library. Errors: SystemExit.

    The PyTorch device is compiled once for all modes but ``sanitized``.
    """
    common, kernel = flags_of(mode)
    device_folder = out / ("device_sanitized" if mode == "sanitized" else "device")
    statements, objects, prelude = device_statements(common, device_folder)
    run_ninja(device_folder, statements, jobs)
    folder = out / mode
    try:
        kernels = translate_tree(ROOT / "pcdet/ops", folder / "translated")
    except ValueError as error:
        raise SystemExit(str(error)) from error
    run_ninja(folder, library_statements(mode, folder, kernels, objects, None if kernel else prelude), jobs)
    return folder / "libcuda_emulator.so"


def compile_program(mode: str, folder: Path, out: Path) -> Path:
    """A folder's kernels (.cu) and host sources (.cpp) with the runtime, without torch -> the program, below ``out``.

    Raises subprocess.CalledProcessError where a source is wrong.
    """
    common, kernel = flags_of(mode)
    kernels = translate_tree(folder, out / "translated")
    parts = {
        "runtime": (write_units(runtime_sources(mode), out, "runtime", 1), runtime_flags(mode).split()),
        "host": (write_units(sorted(folder.glob("*.cpp")), out, "host", 1), []),
        "kernels": (write_units(kernels, out, "kernels", 1), [*kernel.split(), "-include", "cuda_emulator/cuda.h"]),
    }
    running, objects = [], []
    for part, (files, flags) in parts.items():
        objects.append(out / f"{part}.o")
        command = ["g++", *common.split(), f"-I{folder}", *flags, "-c", *files, "-o", objects[-1]]
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
    print(build(args.mode, args.jobs, args.out.resolve()))


if __name__ == "__main__":
    main()
