"""Plays cases of every scenario for a time, and ends with a table.

python -m soak --seconds 120 --seed 7

Exit status 1 means that something was wrong; each failing case is then kept as a file, which ``--replay`` plays again.
"""

import argparse
import sys
import time
from pathlib import Path

from support import run_counts

from soak import kept_cases, report
from soak.lab import Lab
from soak.process import adopt_orphans, import_commands
from soak.scenarios import SCENARIOS, draw, why_left_out


def main(argv=None) -> int:
    args = parse_args(argv)
    if args.summary:
        print(report.summary(args.summary))
        return 0
    import_commands()
    adopt_orphans()
    rows, problems = {}, []
    progress = report.Progress(args.seconds)
    with Lab() as lab:
        for name, case, number in replayed(args.replay) if args.replay else drawn(args, progress.begun):
            begun = time.monotonic()
            tally = SCENARIOS[name].play(case, lab)
            rows.setdefault(name, report.Row()).add(tally, time.monotonic() - begun)
            if tally.problems:
                file = number if args.replay else kept_cases.keep(case, tally.problems, args.keep)
                problems.append(f"{name}, {file}:\n    " + "\n    ".join(tally.problems))
            progress.show(name, rows)
    progress.close()
    print(*problems, sep="\n", end="\n" if problems else "")
    print(report.table(rows))
    if args.json:
        report.append(args.json, rows, args.seed)
    return int(bool(problems))


def parse_args(argv):
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=float, default=120, help="time for all scenarios; each plays at least one case")
    add("--seed", type=int, default=0, help="another seed, other cases")
    add("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS))
    run_counts.add_flags(parser)
    add("--keep", type=Path, default=kept_cases.KEPT, help="folder for failing cases")
    add("--replay", nargs="+", type=Path, metavar="FILE", help="play these kept cases and no others")
    return parser.parse_args(argv)


def replayed(files):
    """Yields (scenario, case, file) of kept cases."""
    for file in files:
        case = kept_cases.load(file)
        yield case["scenario"], case, file


def drawn(args, begun: float):
    """Yields (scenario, case, number) until the time is over; what a scenario leaves of its share goes to the next."""
    names = []
    for name in args.scenarios:
        reason = why_left_out(SCENARIOS[name], args.seconds)
        if reason is None:
            names.append(name)
        else:
            print(f"{name}: left out, {reason}", file=sys.stderr)
    for index, name in enumerate(names):
        left = begun + args.seconds - time.monotonic()
        share = max(left, 0) * SCENARIOS[name].SHARE / sum(SCENARIOS[other].SHARE for other in names[index:])
        end, number = time.monotonic() + share, 0
        while number == 0 or (time.monotonic() < end and SCENARIOS[name] is not SCENARIOS["endurance"]):
            yield name, draw(SCENARIOS[name], args.seed, number, share), number
            number += 1


if __name__ == "__main__":
    sys.exit(main())
