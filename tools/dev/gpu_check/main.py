"""The command of the check; README.md here says what it does."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from gpu_check import report, runner, state, tasks
from gpu_check.machine import EMULATOR, ROOT, NoDeviceError, read_machine
from gpu_check.state import Result

PASSED, FAILED, UNFINISHED, INTERRUPTED = 0, 1, 3, 130


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="gpu_check", description="Build, tests, benchmarks, training steps and a profile on a GPU, in ten minutes."
    )
    parser.add_argument("--device", choices=("cuda", "emulated", "cpu"), default="cuda", help="others rehearse")
    parser.add_argument("--small", action="store_true", help="small sizes, for a rehearsal")
    parser.add_argument("--budget", type=float, default=600.0, metavar="SECONDS", help="what does not fit is not run")
    parser.add_argument("--again", nargs="+", choices=tasks.STAGES, default=[], metavar="STAGE", help="repeat these")
    parser.add_argument("--only", nargs="+", metavar="STAGE[/TASK]", help="run and report these alone")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processors to use")
    parser.add_argument("--output", type=Path, default=ROOT / "output/gpu_check", metavar="FOLDER")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="write the Markdown there too")
    args = parser.parse_args(argv)
    if args.budget <= 0 or args.jobs < 1:
        parser.error(f"--budget must be above 0 and --jobs at least 1, got {args.budget:g} and {args.jobs}")
    args.output = args.output.resolve()
    return args


def chosen(every: list[tasks.Task], only: list[str] | None) -> list[tasks.Task]:
    """The tasks that ``--only`` names, all without it.

    Raises:
        SystemExit: a name that is neither a stage nor a task.
    """
    if not only:
        return every
    names = {name for task in every for name in (task.stage, task.key)}
    if unknown := [name for name in only if name not in names]:
        raise SystemExit(f"--only: {', '.join(unknown)} is no stage and no task; there are {', '.join(sorted(names))}")
    return [task for task in every if task.stage in only or task.key in only]


def exit_status(results: list[Result]) -> int:
    """0 all is well, 1 something failed, 3 nothing failed but not all was run."""
    statuses = {result.status for result in results}
    if statuses & {state.FAILED, state.TIMED_OUT}:
        return FAILED
    return UNFINISHED if state.NOT_RUN in statuses else PASSED


def main(argv: list[str] | None = None) -> int:
    """Runs the check, writes the report, returns the exit status."""
    args = parse_args(argv)
    if args.device != "emulated":
        os.environ.pop(EMULATOR, None)  # with it, tests marked gpu would run on the emulator instead of the card
    try:
        machine = read_machine(args.device)
    except NoDeviceError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return FAILED
    if machine["missing_packages"]:
        print(f"not installed, though requirements.txt names them: {', '.join(machine['missing_packages'])}")
    command = shlex.join(["python", "tools/dev/gpu_check", *(sys.argv[1:] if argv is None else argv)])
    with runner.Signals() as signals:
        try:
            results = run(args, machine, command, signals)
        except runner.Stopped as stopped:
            place = args.output / "report.md"
            print(f"\nstopped by {stopped}; {place} has what was done, the same command goes on", file=sys.stderr)
            return INTERRUPTED
    print(f"{report.verdict(results)}: {args.output / 'report.md'} and report.json")
    return exit_status(results)


def run(args: argparse.Namespace, machine: dict, command: str, signals: runner.Signals) -> list[Result]:
    """Runs the tasks and writes the report, anew after each."""
    began, started = time.monotonic(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    settings = tasks.Settings(args.device, args.small, args.jobs, args.output)

    def write(results: list[Result]) -> None:
        head = {
            "command": command,
            "started": started,
            "seconds": round(time.monotonic() - began, 1),
            "budget_s": args.budget,
            "rehearsal": args.small or args.device != "cuda",
        }
        report.write(args.output, head, machine, results, args.page)

    return runner.run_tasks(
        chosen(tasks.all_tasks(settings, machine), args.only),
        lambda task: state.inputs_of(task, machine, args.small),
        budget_s=args.budget,
        again=args.again,
        after_each=write,
        check_stop=signals.check,
    )
