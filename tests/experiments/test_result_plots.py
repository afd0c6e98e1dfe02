import functools
import struct
from itertools import combinations

import pytest
from support.synthetic_results import comparison, large_results, results, run, small_results

from pcdet.experiments.results.files import parse_results
from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.page import write_report
from pcdet.experiments.results.plots import draw_curves, draw_gains
from pcdet.experiments.results.sensitivity import draw_sensitivity
from pcdet.utils.palette import METHODS, styles_of

pytest.importorskip("matplotlib")


def reported(content):
    return Reported(parse_results(content))


def grid():
    """Three values of K by two of N, each compared with plain."""
    settings = {f"k{k}n{n}": {"K": k, "N": n} for k in (32, 64, 128) for n in (1000, 6000)}
    runs = [run("plain", 50.0, seed=s) for s in range(2)]
    comparisons = []
    for index, method in enumerate(settings):
        gains = [1.0 + index / 4, 1.2 + index / 4]
        runs += [run(method, 50.0 + gain, seed=s) for s, gain in enumerate(gains)]
        mean = sum(gains) / 2
        comparisons.append(comparison(method, "plain", gains, (mean - 1.27, mean + 1.27)))
    return results(runs, comparisons, plan={"TABLE": "sensitivity", "SETTINGS": settings})


def texts(figure):
    """Every text that is seen, with its extent in pixels."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    # a tick out of the axis's limits keeps its text and is not drawn
    ticks = [tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()]
    drawn = {id(t) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for t in _drawn(axis)}
    hidden = {id(label) for tick in ticks for label in (tick.label1, tick.label2) if id(label) not in drawn}
    return [(t.get_text(), t.get_window_extent(renderer)) for t in shown if id(t) not in hidden]


def _drawn(axis):
    return [tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible()]


def clashes(figure):
    """Pairs of texts that touch, texts that leave the figure, and texts on the points of a panel."""
    found, all_texts = [], texts(figure)
    found += [(a, b) for (a, box), (b, other) in combinations(all_texts, 2) if box.shrunk(0.98, 0.9).overlaps(other)]
    page = figure.bbox
    for text, box in all_texts:
        if box.x0 < page.x0 - 1 or box.x1 > page.x1 + 1 or box.y0 < page.y0 - 1 or box.y1 > page.y1 + 1:
            found.append((text, "edge"))
        found += [(text, "points") for axes in figure.axes if axes.bbox.shrunk(0.99, 0.99).overlaps(box)]
    return found


@functools.cache
def drawn(draw, content):
    """A figure that tests look at and leave as it is."""
    return draw(reported(content()))


@pytest.mark.parametrize(
    ("draw", "content"),
    [
        (draw_gains, small_results), (draw_gains, large_results), (draw_curves, small_results),
        (draw_curves, large_results), (draw_sensitivity, grid),
    ],
)  # fmt: skip
def test_no_label_runs_into_another_or_into_points(draw, content):
    figure = drawn(draw, content)
    assert len(texts(figure)) > 5
    assert not clashes(figure)


def test_labels_that_do_clash_are_found():
    figure = draw_gains(reported(small_results()))
    figure.axes[0].text(2.5, 0.0, "on a point")
    figure.text(0.5, 0.5, "here")
    figure.text(0.5, 0.5, "there")
    found = clashes(figure)
    assert ("on a point", "points") in found and ("here", "there") in found


def test_the_report_is_written_without_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    files = write_report(parse_results(grid()), tmp_path / "new")
    assert [f.name for f in files] == ["results.md", "gains.png", "curves.png", "sensitivity.png"]
    for file in files[1:]:
        header = file.read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", header[16:24])
        assert width > 400 and height > 300
        assert f"({file.name})" in files[0].read_text()


def test_the_forest_plot_grows_with_its_rows():
    small, large = (drawn(draw_gains, content).get_size_inches()[1] for content in (small_results, large_results))
    assert large > 3 * small


def points(axes, label=None):
    return [line for line in axes.lines if label is None or line.get_label() == label]


def test_each_gain_is_drawn_with_mean_interval_and_seeds_and_hollow_where_not_shown():
    figure = drawn(draw_gains, small_results)
    axes = figure.axes[0]
    orange = [line for line in axes.lines if line.get_color() == "#E69F00"]
    seeds, interval, mean = orange
    assert list(seeds.get_xdata()) == [-0.6, -0.4]
    assert list(interval.get_xdata()) == [-1.77062, 0.77062]
    assert list(mean.get_xdata()) == [-0.5] and mean.get_markerfacecolor() == "white"
    black = [line for line in axes.lines if line.get_color() == "#000000"]
    assert [line.get_markerfacecolor() for line in black if list(line.get_xdata()) == [2.5]] == ["#000000"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["FitNets [26]", "slices"]
    assert [a.get_xlabel() for a in figure.axes] == [f"gain in {m} mAP, moderate (points)" for m in ("3D", "BEV")]


def test_curves_have_the_mean_over_the_macs_of_the_training_and_mark_the_best_length():
    axes = drawn(draw_curves, small_results).axes[0]
    plain = axes.containers[0]
    line = plain.lines[0]
    assert list(line.get_xdata()) == [1e12, 1.5e12] and list(line.get_ydata()) == [51.0, 54.0]
    _, _, (bars,) = plain.lines
    (low, high) = bars.get_segments()[0][:, 1]
    assert high - 51.0 == pytest.approx(2**0.5) and 51.0 - low == pytest.approx(2**0.5)  # of 50 and 52
    (ring,) = [line for line in axes.lines if line.get_label().startswith("best length")]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([1e12], [51.0])
    assert ring.get_label() == "best length of plain,\nthe longest that was tried"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1.00 T"]


def test_no_two_methods_of_a_panel_have_one_colour():
    figure = drawn(draw_curves, large_results)
    assert len(figure.axes) == 4  # 13 methods in two panels, for two students
    for axes in figure.axes:
        colours = [c.lines[0].get_color() for c in axes.containers]
        assert len(set(colours)) == len(colours) <= 1 + len(METHODS)


def test_sensitivity_has_a_panel_a_setting_and_a_line_for_what_is_held():
    by_k, by_n = drawn(draw_sensitivity, grid).axes
    assert by_k.get_xlabel() == "K" and [t.get_text() for t in by_k.get_xticklabels()] == ["32", "64", "128"]
    held = [t.get_text() for t in by_k.get_legend().get_texts()]
    assert held == ["N = 1000", "N = 6000"]
    (line,) = points(by_k, "N = 1000")
    assert list(line.get_ydata()) == pytest.approx([1.1, 1.6, 2.1])
    assert [t.get_text() for t in by_n.get_legend().get_texts()] == ["K = 32", "K = 64", "K = 128"]


def test_nothing_is_drawn_of_nothing():
    assert draw_gains(reported(results([run("plain", 50.0)]))) is None
    assert draw_curves(reported(results([]))) is None


def test_a_row_has_one_style_in_all_pictures_of_a_plan():
    gains, curves = drawn(draw_gains, large_results), drawn(draw_curves, large_results)
    over_slices = next(t for t in gains.legends[0].legend_handles if t.get_label() == "over slices")
    lines = {c.get_label(): c.lines[0] for axes in curves.axes for c in axes.containers}
    for line in (over_slices, lines["slices"]):
        assert (line.get_color(), line.get_marker()) == ("#009E73", "^")
    assert lines["plain"].get_color() == styles_of(["student"])["student"].colour == "#000000"
