"""Makes the page that shows what distillation won and lost, from a plan's results.

    python audit.py --results ../output/experiments/lab_pointpillar/results.json

Where the plan's runs lie beside the file, the page has their objects and scenes; without them, the numbers alone. For
single checkpoints, `compare.py --page FILE` makes the same page.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pcdet import api
from pcdet.audit.files import write_json
from pcdet.audit.page.assembly import write_page
from pcdet.audit.plan_runs import PlanRuns
from pcdet.audit.report import Audit
from pcdet.cli.auditing import add_page_flags, check_page_flags, make_audit, numbers_file, versions_text
from pcdet.cli.ending import run
from pcdet.engine.precision import Precision
from pcdet.experiments.results.files import ResultsError, read_results
from pcdet.registry import ConfigError
from pcdet.utils.places import ROOT

TOOLS = ROOT / "tools"


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: audit(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, type=Path, help="a plan's results.json")
    parser.add_argument("--page", type=Path, help="the page; audit.html beside the results if left out")
    parser.add_argument("--student", help="whose objects and scenes are shown; the plan's first if left out")
    parser.add_argument(
        "--methods",
        nargs="*",
        default=(),
        help="methods to show, controls among them; all controls and finalists if left out",
    )
    parser.add_argument("--length", type=float, default=1.0, help="of their trainings")
    parser.add_argument("--data_path", help="the data folder, from tools/, instead of the plan's")
    add_page_flags(parser)
    return parser.parse_args(argv)


def audit(args: argparse.Namespace) -> None:
    """The page of a plan's results, and the audit's numbers beside it.

    Raises:
        ConfigError: the results, or what lies beside them, cannot be read.
    """
    torch.set_num_threads(1)
    try:
        results = read_results(args.results)
    except ResultsError as error:
        raise ConfigError(str(error)) from error
    page = args.page or args.results.with_name("audit.html")
    numbers = numbers_file(page, [args.results])
    check_page_flags(args)
    runs = PlanRuns(results, args.results.parent, TOOLS, args.data_path)
    found = audit_of(runs, args) if runs.are_there() else None
    if found is None:
        print(f"no runs beside {args.results}: the page has the plan's numbers, but neither objects nor scenes")
    else:
        write_json(numbers, found)
        print(os.path.relpath(numbers))
    facts = {"plan": results.name, "command": shlex.join(sys.argv), **results.facts}
    facts["versions"] = versions_text(results.facts.get("versions", {}))
    try:
        write_page(
            page, results=results, audit=found, title=results.title or results.name, facts=facts,
            keep_whole=args.keep_whole,
        )  # fmt: skip
    except ValueError as error:  # more than a page holds, or a plan without what its tables need
        raise ConfigError(str(error)) from error
    print(os.path.relpath(page))


def audit_of(runs: PlanRuns, args: argparse.Namespace) -> Audit:
    """What the student's runs won and lost.

    Raises:
        ConfigError: a flag names what the plan does not have, or a run's files are not there.
    """
    students = runs.reported.students()
    student = args.student or students[0]
    if student not in students:
        raise ConfigError(f"--student: the plan has {', '.join(students)}, got {student!r}")
    models = runs.models(student, runs.chosen(student, args.methods, args.length), args.length)
    first = {model.name: runs.first_run(student, model.name, args.length) for model in models}
    detectors = {}
    for name in [model.name for model in models if model.role != "control"][:2]:  # the teacher and a student
        dataset = runs.dataset(first[name])
        detector = api.build_detector(runs.config(first[name]), dataset, ckpt=runs.checkpoint(first[name]))
        detectors[name] = detector.eval(), dataset, Precision()
    controls = [model.name for model in models if model.role == "control"]
    return make_audit(args, runs.dataset(first[models[-1].name]), models, controls, detectors)
