"""Runs contenders side by side: interleaved rounds, median and spread, the machine and the versions beside them.

Beside the wall clock stands the process's CPU time of all threads: on a machine that others use too, where a call of a
millisecond may wait for its core, it is the figure to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from statistics import median

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

import torch
from _device import Device

OURS = "pcdet"
REHEARSAL = "rehearsal at small sizes"  # how its cases begin: nothing takes them for figures
LONG_MS = 10.0  # from here on, starting a call on a GPU and waiting for it do not count


class Benchmark:
    """Collects rows ``case, contender, ms`` and prints them; absent contenders are named once, with the reason.

    Args:
        doc: the script's docstring, shown by ``--help``.
        versions: packages beside torch and numpy whose versions are printed.
        repeats: default of ``--repeats``.
        options: further command-line options, flag -> arguments of ``add_argument``; their values are in ``options``.
    """

    def __init__(
        self, doc: str, versions: tuple[str, ...] = (), *, repeats: int = 9, options: Mapping[str, dict] | None = None
    ):
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--device", default="cpu", help="cpu, cuda or emulated")
        parser.add_argument("--small", action="store_true", help="a rehearsal: sizes that take seconds anywhere")
        parser.add_argument("--repeats", type=int, default=repeats, help="rounds; each runs every contender once")
        parser.add_argument("--threads", type=int, default=torch.get_num_threads())
        parser.add_argument("--json", type=Path, help="write machine and rows there too")
        for flag, arguments in (options or {}).items():
            parser.add_argument(flag, **arguments)
        args = self.options = parser.parse_args()
        try:
            self.measured = Device(args.device)
        except ValueError as error:
            parser.error(str(error))
        self.device, self.repeats, self.json_path = self.measured.torch, args.repeats, args.json
        self.small: bool = args.small
        torch.set_num_threads(args.threads)
        self.rows: list[dict] = []
        self.absent: dict[str, str] = {}
        self.machine = {
            "command": " ".join(["python", f"tools/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            "processor": _processor(),
            "device": self.measured.card,
            "threads": args.threads,
            "load": round(os.getloadavg()[0], 1),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in ("torch", "numpy", *versions)},
        }
        print("\n".join(f"{key:10s} {value}" for key, value in self.machine.items()))

    def size(self, number: int) -> int:
        """A size of a case, or the small one that stands for it in a rehearsal."""
        return max(8, number // 64) if self.small else number

    def skip(self, contender: str, reason: str) -> None:
        """Names a contender that cannot take part here."""
        if contender not in self.absent:
            self.absent[contender] = reason
            print(f"skipped    {contender}: {reason}")

    def run(self, case: str, contenders: dict[str, Callable[[], object]], same: Callable | None = None) -> None:
        """Times the contenders on one case.

        Args:
            case: what is computed, with its sizes.
            contenders: name -> call; ``OURS`` among them.
            same: compares (our result, another's) and returns a word on it; not timed.
        """
        case = f"{REHEARSAL}: {case}" if self.small else case
        results = {name: call() for name, call in contenders.items()}  # warms up too
        in_a_row = {name: self._calls_in_a_row(call) for name, call in contenders.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(self.repeats):
            for name, call in contenders.items():
                times[name].append(self._time(call, in_a_row[name]))
        print(f"\n{case}")
        our_wall, our_cpu = (median(part) for part in zip(*times[OURS], strict=True))
        for name, pairs in times.items():
            wall, cpu = zip(*pairs, strict=True)
            word = "" if same is None or name == OURS else same(results[OURS], results[name])
            row = {
                "case": case,
                "contender": name,
                "ms": median(wall),
                "min_ms": min(wall),
                "max_ms": max(wall),
                "cpu_ms": median(cpu),
                "times_ours": median(wall) / our_wall,
                "cpu_times_ours": median(cpu) / our_cpu,
                "agreement": word,
                "n": self.repeats,
            }
            self.rows.append(row)
            spread = f"[{min(wall):.2f} .. {max(wall):.2f}]"
            ratio = f"{row['times_ours']:7.1f} x ours (cpu {row['cpu_times_ours']:.1f} x)"
            print(f"  {name:28s} {row['ms']:9.3f} ms {spread:21s} cpu {row['cpu_ms']:9.3f} ms {ratio}  {word}")

    def finish(self) -> None:
        """Writes the JSON file, if one is wanted."""
        if self.json_path:
            result = {**self.machine, "skipped": self.absent, "rows": self.rows}
            self.json_path.write_text(json.dumps(result, indent=2) + "\n")

    def _calls_in_a_row(self, call: Callable[[], object]) -> int:
        """How many calls one measurement takes: several of a short call on a GPU.

        The launch of the next then hides behind the work of the one before, as it does in a training step, and a call
        of 30 us is not measured by the 10 us that starting and waiting cost.
        """
        if not self.measured.is_cuda:
            return 1
        return 10 if self._time(call, 1)[0] < LONG_MS else 1

    def _time(self, call: Callable[[], object], calls: int) -> tuple[float, float]:
        """Milliseconds of wall clock and of CPU time, of one of ``calls`` calls in a row."""
        self.measured.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            call()
        self.measured.wait()
        return (time.perf_counter() - wall) * 1e3 / calls, (time.process_time() - cpu) * 1e3 / calls


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
