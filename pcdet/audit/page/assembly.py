"""Writes the page: one HTML file with its data, its scripts and plotly, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pcdet.audit.page.audit_plots import curve_plots, error_plot, group_gain_plot
from pcdet.audit.page.blocks import Section, plots, sentences, table, text
from pcdet.audit.page.comparison_plots import comparison_cost_plot, comparison_gain_plot
from pcdet.audit.page.comparison_rows import Compared, comparison_tables
from pcdet.audit.page.embedded import json_text
from pcdet.audit.page.groups import negative_transfer, pairs_of
from pcdet.audit.page.measured_tables import measured_tables
from pcdet.audit.page.objects import objects_block
from pcdet.audit.page.result_plots import cost_plot, curves_plot, forest_plot, sensitivity_plot
from pcdet.audit.page.scenes import encode_scenes
from pcdet.audit.page.summary import summary_section
from pcdet.audit.report import ERRORS, IGNORED, TRUE, Audit
from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.schema import Results
from pcdet.experiments.results.tables import note, tables
from pcdet.utils import palette
from pcdet.utils.safe_files import replacing

HERE = Path(__file__).resolve().parent
SCRIPTS = ("page.js", "objects.js", "view3d.js", "scene.js")
LIMIT = 15_000_000  # bytes of a page
NO_RESULTS = "No results of a plan and no comparison were given."
NO_AUDIT = "No audit was given."
ONE_SEED = "do not say what another training would give"
NO_GAINS = "No row is compared with a control that has as many seeds."
NO_OBJECTS = "No frame holds an object that counts."
NO_PAIRS = "No student is compared with another model, so none wins or loses an object."
NO_PLOTLY = "the page needs plotly: pip install plotly"


def write_page(
    path: str | Path,
    *,
    results: Results | None = None,
    comparison: Mapping[str, Any] | None = None,
    audit: Audit | None = None,
    title: str,
    facts: Mapping[str, str],
    keep_whole: Collection[str] = (),
    limit: int = LIMIT,
) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    Args:
        path: ends in .html; its folder is made if need be.
        results: of a plan of experiments, checked.
        comparison: what ``compare.py --json`` wrote.
        audit: what was found object by object. Its models' names are looked for among the comparison's rows.
        title: of the page.
        facts: name -> value, of how all this was made; they stand at the end.
        keep_whole: frames of the audit's scenes whose points are not thinned.
        limit: bytes that the page may take; points are thinned to that.

    Raises:
        ValueError: results whose plan lacks what its ``TABLE`` needs, a comparison without rows, a frame to keep that
            no scene shows, points that are not finite, or more than the limit holds.
        ImportError: plotly is not installed.
    """
    path = Path(path)
    reported = Reported(results) if results else None
    compared = Compared(comparison, audit) if comparison else None
    content = {
        "title": title,
        "facts": [[str(key), str(value)] for key, value in facts.items()],
        "sections": [section.content() for section in sections(reported, compared, audit)],
        "scenes": [scene.frame for scene in audit.scenes] if audit else [],
        "models": _models(audit) if audit else [],
        "kinds": {"true": TRUE, "ignored": IGNORED, "errors": list(ERRORS)},
        "colours": {
            "truth": palette.TRUTH, "true": palette.FOUND, "false": palette.FALSE, "ignored": palette.IGNORED,
            "missed": palette.MISSED, "sequential": _colour_scale(),
        },
    }  # fmt: skip
    page = _filled(title, json_text(content), "")
    if audit:
        room = limit - len(page.encode())
        scenes = encode_scenes(audit, room, keep_whole)
        page = _filled(title, json_text(content), "\n".join(map(_scene_script, range(len(scenes)), scenes)))
    if (size := len(page.encode())) > limit:
        raise ValueError(
            f"{path.name} would take {size:,} bytes, and {limit:,} are allowed; show fewer objects or scenes"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(page.encode())
    return path


def sections(reported: Reported | None, compared: Compared | None, audit: Audit | None) -> list[Section]:
    """The page's sections in their order; those without data say so."""
    return [
        summary_section(reported, compared, audit),
        Section("tables", "Tables", NO_RESULTS, _tables(reported, compared)),
        Section("gains", "Gains over controls", NO_GAINS if reported or compared else NO_RESULTS, plots(
            *([forest_plot(reported)] if reported else []), *([comparison_gain_plot(compared)] if compared else []))),
        Section("cost", "Accuracy against cost", NO_RESULTS, plots(
            *([comparison_cost_plot(compared)] if compared else []), *([cost_plot(reported)] if reported else []))),
        Section("curves", "Learning curves", "No results of a plan were given.", plots(
            *([curves_plot(reported)] if reported else []))),
        Section("detections", "Precision, recall and false positives", NO_OBJECTS if audit else NO_AUDIT, plots(
            *(curve_plots(audit) if audit else []))),
        Section("sensitivity", "Sensitivity to settings", "No plan that varies settings was given.", plots(
            *([sensitivity_plot(reported)] if reported else []))),
        Section("audit", "The audit: who gains and who loses", NO_AUDIT, _audit(audit) if audit else []),
        Section("objects", "Objects", _no_objects(audit),
                [objects_block(audit)] if audit and audit.objects else []),
        Section("frames", "Frames", NO_AUDIT if audit is None else "The audit holds no frames to look at.",
                [{"kind": "scenes"}] if audit and audit.scenes else []),
    ]  # fmt: skip


def _tables(reported: Reported | None, compared: Compared | None) -> list[dict[str, Any]]:
    found = [table(t) for t in (*comparison_tables(compared), *measured_tables(compared))] if compared else []
    if reported:
        found += [text(note(reported)), *(table(t) for t in tables(reported))]
    return found


def _no_objects(audit: Audit | None) -> str:
    """What stands where the table of objects would."""
    if audit is None:
        return NO_AUDIT
    return "The models find the same objects." if pairs_of(audit) else NO_PAIRS


def _audit(audit: Audit) -> list[dict[str, Any]]:
    rules = "; ".join(f"{name}: {rule}" for name, rule in audit.rules.items())
    found = [text(f"{audit.frames} frames were looked at. When a detection finds an object: {rules}.")]
    if once := [model.name for model in audit.models if model.seeds == 1 and model.role != "teacher"]:
        found.append(
            text(f"One seed each of {', '.join(once)}: their intervals are over frames alone, and {ONE_SEED}.")
        )
    found += plots(group_gain_plot(audit))
    if said := negative_transfer(audit):
        found.append(sentences("Negative transfer: where the student finds fewer objects than its control", said, 20))
    else:
        found.append(text("Negative transfer: no student is compared with a control, so none can be shown."))
    return found + plots(error_plot(audit))


def _models(audit: Audit) -> list[dict[str, Any]]:
    return [
        {"name": m.name, "role": m.role, "seeds": m.seeds, "thresholds": dict(m.first_thresholds)} for m in audit.models
    ]


# ---------------------------------------------------------------------------------------------------------- the file


def _scene_script(number: int, scene: Mapping) -> str:
    return f'<script type="application/json" id="scene-{number}">{json_text(scene)}</script>'


def _filled(title: str, data: str, scenes: str) -> str:
    """``page.html`` with its places filled, in one pass: what is put in is not searched again."""
    ours = "\n".join(_script(HERE / name) for name in SCRIPTS)
    library, start = _plotly(), "auditPage.start();"
    allowed = " ".join(f"'sha256-{_sum(script)}'" for script in (ours, library, start))
    parts = {
        "title": html.escape(title).encode("ascii", "xmlcharrefreplace").decode(),
        "allowed": allowed,
        "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "data": data,
        "scenes": scenes,
        "script": ours,
        "plotly": library,
        "start": start,
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def _script(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _sum(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _colour_scale() -> list[str]:
    """The palette's scale for amounts, low to high, as plotly has it: colours in hexadecimal."""
    try:
        from plotly.colors import sequential
    except ImportError as error:
        raise ImportError(NO_PLOTLY) from error
    return getattr(sequential, palette.SEQUENTIAL.capitalize())


def _plotly() -> str:
    """Plotly's JavaScript, with what would end its script element or begin a comment in it made harmless."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(NO_PLOTLY) from error
    library = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    for dangerous in ("</script", "<!--"):
        if dangerous in library.lower():
            raise ValueError(f"plotly's JavaScript holds {dangerous!r}, which a page cannot hold; use another version")
    return library
