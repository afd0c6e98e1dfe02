"""The command: fuzzes, prints a table, saves what fails; exit status 1 if anything did, or if nothing was tried.

make fuzz SECONDS=120                          everything
make fuzz SECONDS=60 FUZZ='--targets kitti'    the targets whose names contain a word
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # children are forked: no pools of threads before that

from support import run_counts

from fuzz import campaign, report
from fuzz.engines import has_atheris
from fuzz.target import Target
from fuzz.targets import OP_TARGETS, READER_TARGETS, TARGETS

REGRESSIONS = Path(__file__).resolve().parents[1] / "regressions" / "fuzz"
GROUPS = {"readers": READER_TARGETS, "ops": OP_TARGETS}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="for all targets together (default: 120)")
    parser.add_argument("--group", choices=(*GROUPS, "all"), default="all", help="readers, ops, or all (default)")
    parser.add_argument("--targets", nargs="+", metavar="WORD", help="only those whose names contain a word")
    parser.add_argument("--seed", default="0", help="the same seed, the same inputs (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time (default: one a core)")
    parser.add_argument("--save", type=Path, default=REGRESSIONS, help="folder of what fails (default: %(default)s)")
    run_counts.add_flags(parser)
    parser.add_argument("--no-atheris", action="store_true", help="mutate bytes without coverage guidance")
    parser.add_argument("--list", action="store_true", help="print the targets and end")
    parser.add_argument("--groups", action="store_true", help="print the groups that hold these targets and end")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.jobs < 1:
        parser.error(f"--seconds must be above 0 and --jobs at least 1, got {options.seconds:g} and {options.jobs}")
    return options


def chosen(options: argparse.Namespace) -> list[Target]:
    """The group's targets that the command line names.

    Raises:
        SystemExit: a word names no target at all, or all of them name targets of the other group.
    """
    for word in options.targets or ():
        if not any(word in name for name in TARGETS):
            sys.exit(f"error: no target's name contains {word}; there are {', '.join(TARGETS)}")
    words = options.targets or [""]
    group = GROUPS.get(options.group, TARGETS.values())
    found = [target for target in group if any(word in target.name for word in words)]
    if not found:
        sys.exit(f"error: no target of the group {options.group} has a name with {', '.join(words)}; drop --group")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 1 if an input failed, or if the counts of an engine show nothing."""
    options = parse(arguments)
    if options.summary:
        print(report.summary(options.summary))
        return 0
    targets = chosen(options)
    if options.groups:
        print(*(name for name, group in GROUPS.items() if any(target in group for target in targets)))
        return 0
    if options.list:
        print("\n".join(target.name for target in targets))
        return 0
    guided = has_atheris() and not options.no_atheris
    rows, kept = campaign.run(
        targets, seconds=options.seconds, seed=options.seed, jobs=options.jobs, save=options.save, atheris=guided
    )
    print(report.table(rows))
    if any(row.engine == "bytes" for row in rows):
        why = "as asked" if options.no_atheris else "atheris is not installed for this Python"
        why = f"the time is too short, below {campaign.LEAST_GUIDED:g} s an engine" if guided else why
        print(f"bytes were mutated without coverage guidance: {why}")
    if options.json:
        report.append(options.json, rows, options.seed)
    failures = sum(row.failures for row in rows)
    if failures:
        print(f"{failures} inputs failed; one of each kind is kept:\n{report.findings(kept)}")
    blank = [row for row in rows if row.blank]
    for row in blank:
        print(f"{row.target}, {row.engine}: {row.blank}; this run says nothing about it")
    return int(failures > 0 or bool(blank))


if __name__ == "__main__":
    sys.exit(main())
