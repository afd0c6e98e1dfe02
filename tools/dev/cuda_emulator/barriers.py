"""Leaves out every barrier of the CUDA kernels in turn, and says what notices.

    python tools/dev/cuda_emulator/barriers.py [--plain LIBRARY] [--watched LIBRARY]

Finds the barriers in the sources and runs the source's case of barrier_cases.py without each: under several orders of
threads in the plain library, where the result goes wrong, and where no order notices under the watched library, which
reports a race. Each run is a process of its own, since a kernel without a barrier may end it. Prints a table; exit
status 1 if a barrier is not reached or nothing notices its absence: such a barrier is redundant, or its case too small.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BARRIER = re.compile(r"\b__sync(?:threads|warp)\w*\(")
COMMENT = re.compile(r"//.*")
SEEDS = (0, -1, 1, 2, 3)
SECONDS = 120  # that a run may take; a kernel without a barrier may never end


@dataclass
class Verdict:
    """What came of a barrier that was left out: how often it was, and what noticed (empty: nothing)."""

    site: str
    reached: int = 0
    noticed: str = ""


def barriers() -> list[str]:
    """Every barrier below pcdet/ops, as file.cu:line."""
    found = []
    for path in sorted((ROOT / "pcdet/ops").rglob("*")):
        if path.suffix in {".cu", ".cuh", ".h"}:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                found += [f"{path.name}:{number}"] * bool(BARRIER.search(COMMENT.sub("", line)))
    return found


def judge(library: Path, sites: list[str], seeds: tuple[int, ...]) -> list[Verdict]:
    """Runs the cases of these barriers on one library, in a process that loads it."""
    command = [sys.executable, __file__, "--work", str(library), *sites, "--seeds", *map(str, seeds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment)
    if done.returncode:
        raise SystemExit(f"the cases did not run on {library}: exit status {done.returncode}")
    return [Verdict(**verdict) for verdict in json.loads(done.stdout)]


def work(library: Path, sites: list[str], seeds: list[int]) -> None:
    """In the process of one library: prints the verdicts as JSON."""
    import emulated_device
    import torch
    from barrier_cases import CASES

    device = emulated_device.load(library)
    emulator = ctypes.CDLL(str(library))
    torch.manual_seed(0)
    cases = {name: make() for name, make in CASES.items() if any(site.startswith(f"{name}:") for site in sites)}
    for name, case in cases.items():  # whole kernels must pass, or the verdicts mean nothing
        if trouble := _run_apart(emulator, case, device, "", 0).noticed:
            raise SystemExit(f"{name}: its case fails with every barrier in place: {trouble}")
    verdicts = []
    for site in sites:
        verdict = Verdict(site)
        case = cases.get(site.split(":")[0])
        for seed in seeds if case else ():
            run = _run_apart(emulator, case, device, site, seed)
            verdict.reached += run.reached
            if run.noticed:
                verdict.noticed = f"seed {seed}: {run.noticed}"
                break
        verdicts.append(asdict(verdict))
    print(json.dumps(verdicts))


def _run_apart(emulator: ctypes.CDLL, case, device, site: str, seed: int) -> Verdict:
    """One case without one barrier, in a child process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            os.write(writing, json.dumps(_run(emulator, case, device, site, seed)).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told:
        return Verdict(site, *json.loads(told))
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"{site}: the case itself failed, see above")
    # The process was ended within a kernel, so the barrier was passed.
    return Verdict(site, 1, f"the process ended, {signal.Signals(os.WTERMSIG(status)).name}")


def _run(emulator: ctypes.CDLL, case, device, site: str, seed: int) -> tuple[int, str]:
    """How often the barrier was left out, and what noticed."""
    emulator.cuda_emulator_left_out.restype = ctypes.c_ulong
    emulator.cuda_emulator_set(b"SEED", str(seed).encode())
    emulator.cuda_emulator_set(b"SKIP", site.encode())
    emulator.cuda_emulator_left_out(1)
    noticed = ""
    try:
        case(device)
    except (RuntimeError, ValueError, AssertionError) as error:
        first = next(iter(str(error).splitlines()), "")
        noticed = first if first.startswith("cuda_emulator") else f"{type(error).__name__}: wrong result, {first}"
    return emulator.cuda_emulator_left_out(1), noticed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    libraries = ROOT / "build/cuda_emulator"
    parser.add_argument("--plain", type=Path, default=libraries / "plain/libcuda_emulator.so")
    parser.add_argument("--watched", type=Path, default=libraries / "watched/libcuda_emulator.so")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="orders of threads, as CUDA_EMULATOR_SEED")
    args = parser.parse_args()
    if args.work:
        work(Path(args.work[0]), args.work[1:], args.seeds)
        return 0
    verdicts = judge(args.plain, barriers(), tuple(args.seeds))
    unnoticed = [verdict.site for verdict in verdicts if verdict.reached and not verdict.noticed]
    watched = {v.site: v for v in judge(args.watched, unnoticed, (0,))} if unnoticed else {}
    verdicts = [watched.get(verdict.site, verdict) for verdict in verdicts]
    for v in verdicts:
        print(f"{v.site:36} {v.reached:8}  {v.noticed[:200] or 'NOTHING' if v.reached else 'NOT REACHED'}")
    return int(any(not v.noticed for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
