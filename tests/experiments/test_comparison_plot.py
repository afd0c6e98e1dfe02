import pytest

from pcdet.experiments.quickstart.comparison import Row
from pcdet.experiments.quickstart.comparison_plot import costs_of, draw_comparison, plot_comparison

pytest.importorskip("matplotlib")

NAMES = ("teacher", "student", "student+longer", "student+slices", "student+pointdistiller", "student+slices+at")
COLOURS = ("#F0E442", "#000000", "#E69F00", "#009E73", "#332288", "#CC6677")


@pytest.fixture
def rows():
    """Six rows that lie on top of each other in accuracy and cost, the students with two seeds."""
    rows = {}
    for name in NAMES:
        rows[name] = Row(macs=34_170_000_000)
        for seed in range(1 if name == "teacher" else 2):
            keys = [f"Car_{metric}/{level}_R40" for metric in ("3d", "bev") for level in ("easy", "moderate", "hard")]
            rows[name].add(dict.fromkeys(keys, 50.0 + seed), ["Car"])
            rows[name].train_cpu_s.append(100.0)
    return rows


def test_a_picture_is_written_without_a_display(rows, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    plot_comparison(rows, tmp_path / "new" / "c.png", title="t")
    assert (tmp_path / "new" / "c.png").read_bytes().startswith(b"\x89PNG")


def test_names_stand_beside_the_axes_with_the_colours_that_they_have_everywhere(rows):
    figure = draw_comparison(rows)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)
    assert [handle.get_color() for handle in legend.legend_handles] == list(COLOURS)
    bars, cost = figure.axes
    extent = legend.get_window_extent()
    assert extent.x0 > cost.get_window_extent().x1 and extent.x1 <= figure.bbox.x1 + 1
    assert not cost.texts, "a name among points that lie on top of each other cannot be read"
    assert [(line.get_color(), line.get_label()) for line in cost.lines] == list(zip(COLOURS, NAMES, strict=True))
    assert [line.get_marker() for line in cost.lines] == ["p", "o", "s", "^", "s", "D"]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["3D", "BEV"] * len(NAMES)


def test_numbers_above_the_bars_touch_neither_each_other_nor_a_dot(rows):
    figure = draw_comparison(rows)
    figure.draw_without_rendering()
    texts = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(texts) == 2 * len(NAMES)
    assert all(left.x1 <= right.x0 for left, right in zip(texts, texts[1:], strict=False))
    highest = figure.axes[0].transData.transform((0, 51.0))[1]
    assert all(text.y0 > highest for text in texts[2:]), "two seeds: the higher has 51"


def test_students_of_one_size_are_told_apart_by_what_their_training_took(rows):
    for row, seconds in zip(rows.values(), ([100.0], [30.0, 50.0], [60.0, 60.0]), strict=False):
        row.train_cpu_s = seconds
    costs, label = costs_of(rows)
    assert [costs[name] for name in NAMES[:3]] == [100.0, 40.0, 60.0] and label == "CPU seconds of training"
    rows["student"].train_cpu_s = [60.0, None]
    costs, label = costs_of(rows)
    assert costs["teacher"] == pytest.approx(34.17, abs=0.01) and label == "GMACs per frame"
