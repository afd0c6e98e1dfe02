"""A plan's results as a text for the terminal, and as a page with pictures: facts, claims in sentences, tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.plots import draw_curves, draw_gains
from pcdet.experiments.results.schema import Results
from pcdet.experiments.results.sensitivity import draw_sensitivity
from pcdet.experiments.results.sentences import claims
from pcdet.experiments.results.tables import note, tables
from pcdet.utils.figures import save_figure
from pcdet.utils.safe_files import replacing


def results_text(results: Results) -> str:
    """The results for a terminal.

    Args:
        results: that were checked.

    Raises:
        ValueError: the plan lacks what its ``TABLE`` needs.
    """
    reported = Reported(results)
    parts = [results.title or results.name, *claims(reported), note(reported)]
    return "\n\n".join([*parts, *(table.as_text() for table in tables(reported))]) + "\n"


def results_markdown(results: Results, pictures: Sequence[str] = ()) -> str:
    """The same as a Markdown page.

    Args:
        results: that were checked.
        pictures: paths from the page, shown below the claims.

    Raises:
        ValueError: the plan lacks what its ``TABLE`` needs.
    """
    reported = Reported(results)
    frames = results.frames
    facts = (
        f"{results.metric}; frames: {frames.train} to train on, {frames.search} that choices are made on, "
        f"{frames.report} that numbers are reported on."
    )
    parts = [f"# {results.title or results.name}", facts, "\n".join(f"- {claim}" for claim in claims(reported))]
    parts += [f"![{Path(path).stem}]({path})" for path in pictures]
    parts += [note(reported), *(table.as_markdown() for table in tables(reported))]
    return "\n\n".join(filter(None, parts)) + "\n"


def write_report(results: Results, folder: str | Path) -> list[Path]:
    """Writes the page and its pictures, each file whole or not at all.

    Args:
        results: that were checked.
        folder: where they go; made if need be.

    Returns:
        The files: ``results.md``, ``gains.png`` where anything was compared, ``curves.png`` where a student was trained
        to the end, and ``sensitivity.png`` where the plan's ``TABLE`` asks for it.

    Raises:
        ValueError: the plan lacks what its ``TABLE`` needs.
        ImportError: matplotlib is not installed.
    """
    reported, folder = Reported(results), Path(folder)
    figures = {"gains.png": draw_gains(reported), "curves.png": draw_curves(reported)}
    if reported.setting("TABLE", "overview") == "sensitivity":
        figures["sensitivity.png"] = draw_sensitivity(reported)
    pictures = [save_figure(figure, folder / name) for name, figure in figures.items() if figure is not None]
    page = folder / "results.md"
    text = results_markdown(results, [picture.name for picture in pictures])
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(page) as stream:
        stream.write(text.encode())
    return [page, *pictures]
