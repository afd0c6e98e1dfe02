"""The results of plans that the documentation shows."""

from pathlib import Path

import pytest

from pcdet.experiments.results.files import read_results
from pcdet.experiments.results.page import results_markdown

FILES = sorted((Path(__file__).resolve().parents[2] / "docs" / "benchmarks").glob("*/results.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_a_page_shows_the_results_beside_it(file):
    """They keep to every rule, and the page is what is written of them today."""
    pictures = [name for name in ("gains.png", "curves.png", "sensitivity.png") if (file.parent / name).is_file()]
    assert results_markdown(read_results(file), pictures) == file.with_name("results.md").read_text()
