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
from pcdet.cli.auditing import make_audit
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
    controls = [] if len(contenders) == 2 else args.control
    roles = {teacher: "teacher", **dict.fromkeys(controls, "control")}
    models = [AuditedModel(name=n, role=roles.get(n, "student"), detections=results[n]) for n in contenders]
    last = list(contenders)[-1]
    detectors = {name: (contenders[name].model, contenders[name].dataset) for name in (teacher, last)}
    audit = make_audit(args, contenders[teacher].dataset, models, controls, detectors)
    write_json(page.with_suffix(".json"), audit)
    facts = {"command": shlex.join(sys.argv), **{key: comparison[key] for key in ("data_path", "device", "versions")}}
    try:
        write_page(
            page, comparison=comparison, audit=audit, title=f"{last} beside {teacher}", facts=facts,
            keep_whole=args.keep_whole,
        )  # fmt: skip
    except ValueError as error:  # more than a page holds
        raise ConfigError(f"--page: {error}") from error
    print(f"\npage: {page}")
