"""The table of barriers: every barrier of the sources is listed, and every source has a case that may miss it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/dev/cuda_emulator"))

from barrier_cases import CASES  # noqa: E402
from barriers import barriers  # noqa: E402


def test_every_source_with_barriers_has_a_case():
    assert {site.split(":")[0] for site in barriers()} == set(CASES)


def test_every_barrier_is_listed_with_its_line():
    text = "".join(path.read_text() for path in (ROOT / "pcdet/ops").rglob("*.cu"))
    assert len(barriers()) == text.count("__syncthreads(") + text.count("__syncwarp(") + text.count("__syncthreads_or(")
    for site in barriers():
        name, line = site.split(":")
        (path,) = (ROOT / "pcdet/ops").rglob(name)
        assert "__sync" in path.read_text().splitlines()[int(line) - 1]
