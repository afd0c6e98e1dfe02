"""A plan's results as a text for the terminal and as a page: facts, claims in sentences, tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pcdet.experiments.result_groups import Reported
from pcdet.experiments.result_sentences import claims
from pcdet.experiments.result_tables import NOTE, tables
from pcdet.experiments.results import Results
from pcdet.utils.safe_files import replacing


def results_text(results: Results) -> str:
    """The results for a terminal.

    Args:
        results: that were checked.

    Raises:
        ValueError: the plan lacks what its ``TABLE`` needs.
    """
    reported = Reported(results)
    parts = [results.title or results.name, *claims(reported), NOTE]
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
    return "\n\n".join(filter(None, [*parts, NOTE, *(table.as_markdown() for table in tables(reported))])) + "\n"


def write_page(results: Results, path: str | Path, pictures: Sequence[str] = ()) -> None:
    """Writes the Markdown page, whole or not at all; see :func:`results_markdown`."""
    with replacing(path) as stream:
        stream.write(results_markdown(results, pictures).encode())
