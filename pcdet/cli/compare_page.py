"""The page of a comparison: the audit of its detections, and its rows."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcdet.audit.files import write_json
from pcdet.audit.judging import AuditedModel
from pcdet.audit.page.assembly import write_page
from pcdet.cli.auditing import make_audit, numbers_file, versions_text
from pcdet.cli.contender import Contender
from pcdet.registry import ConfigError

Results = Mapping[str, Sequence[Sequence[dict]]]  # name -> for each seed what its result.pkl holds


def write_comparison_page(
    args: argparse.Namespace, contenders: Mapping[str, Contender], results: Results, comparison: Mapping[str, Any]
) -> None:
    """Writes ``--page``, and beside it the audit's numbers as JSON.

    Args:
        args: of compare.py, with the flags of ``add_page_flags``.
        contenders: each name's first seed, in the order of the rows.
        results: of the evaluations.
        comparison: what ``--json`` writes.

    Raises:
        ConfigError: the page cannot hold what is asked for.
        DataError: the frames have no labels to audit.
    """
    page, (teacher, *_) = Path(args.page), contenders
    controls = [] if len(contenders) == 2 else [name for name in args.control if name != teacher]
    roles = {teacher: "teacher", **dict.fromkeys(controls, "control")}
    models = [AuditedModel(name=n, role=roles.get(n, "student"), detections=results[n]) for n in contenders]
    students = [model.name for model in models if model.role == "student"]
    detectors = {name: _detector(contenders[name]) for name in (teacher, *students[-1:])}
    audit = make_audit(args, contenders[teacher].dataset, models, controls, detectors)
    write_json(numbers_file(page, [args.json]), audit)
    facts = {"command": shlex.join(sys.argv), **{key: comparison[key] for key in ("data_path", "device")}}
    facts["versions"] = versions_text(comparison["versions"])
    try:
        write_page(
            page, comparison=comparison, audit=audit, title=" beside ".join([*students[-1:], teacher]),
            facts=facts, keep_whole=args.keep_whole,
        )  # fmt: skip
    except ValueError as error:  # more than a page holds
        raise ConfigError(f"--page: {error}") from error
    print(f"\npage: {page}")


def _detector(contender: Contender) -> tuple:
    return contender.model, contender.dataset, contender.conditions.precision
