"""Plots of a comparison: accuracy against cost, and gains over the controls."""

from __future__ import annotations

import statistics

from pcdet.audit.page.blocks import Plot
from pcdet.audit.page.comparison_rows import Compared, interval_of
from pcdet.audit.page.figures import errors_of, figure, label, marker

COSTS = {  # what stands on the axis -> a row's number
    "parameters": lambda row: row["params"],
    "MACs of a frame": lambda row: row["macs"] + row.get("sparse_macs", 0),
    "milliseconds a frame": lambda row: row["ms_per_frame"],
    "CPU seconds of the training": lambda row: row["train_cpu_s"],
}


def comparison_cost_plot(compared: Compared) -> Plot:
    """A point a model, a view a cost and metric."""
    note = "Mean over seeds, with one standard deviation. Up and to the left is better."
    plot = Plot("comparison-cost", "Accuracy against cost: the comparison", note, ["cost", "metric"])
    styles = compared.styles()
    for cost, number in COSTS.items():
        known = [name for name, row in compared.rows.items() if number(row)]
        for score in compared.metrics.scores if known else ():
            traces = [
                {
                    "type": "scatter", "mode": "markers", "name": label(name), "marker": marker(styles[name], 10),
                    "x": [number(compared.rows[name])], "y": [statistics.mean(compared.scores(name, score))],
                    "error_y": errors_of([compared.scores(name, score)]), "text": [label(name)],
                    "hovertemplate": "%{text}<br>%{x:.4s}: %{y:.1f}<extra></extra>",
                }
                for name in known
            ]  # fmt: skip
            axis = {"title": cost, "rangemode": "tozero"}
            plot.add([cost, score.shown], figure(traces, axis, {"title": score.axis}))
    return plot


def comparison_gain_plot(compared: Compared) -> Plot:
    """A forest plot of the comparison's paired gains."""
    note = f"Points of {compared.metrics.noun}, seed by seed, with the 95 % interval over seeds; hollow: not shown."
    plot = Plot("comparison-forest", "Paired gains over every control: the comparison", note, ["metric"])
    styles = compared.styles()
    for score in compared.metrics.scores:
        gains = [(name, control, gain) for name, control, own, gain in compared.gains() if own == score]
        names = [f"{name} over {control}" for name, control, _ in gains]
        traces = []
        for place, ((_, control, gain), name) in enumerate(zip(gains, names, strict=True)):
            low, high = gain.interval or (gain.mean, gain.mean)
            colour = styles[control].colour
            points = {**marker(styles[control], 9, gain.shown), "line": {"color": colour, "width": 1.6}}
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label(name),
                    "showlegend": False,
                    "x": [gain.mean],
                    "y": [place],
                    "marker": points,
                    "text": [f"{label(name)}: {gain.mean:+.2f} {interval_of(gain)}"],
                    "hovertemplate": "%{text}<extra></extra>",
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [high - gain.mean],
                        "color": colour,
                        "arrayminus": [gain.mean - low],
                        "width": 0,
                    },
                }  # fmt: skip
            )
        if traces:
            axis = {"tickvals": list(range(len(names))), "ticktext": [label(n) for n in names], "zeroline": False}
            axis["range"] = [len(names) - 0.4, -0.6]
            title = {
                "title": f"gain in {score.said} (points)",
                "zerolinewidth": 2,
                "rangemode": "tozero",
            }
            plot.add([score.shown], figure(traces, title, axis, height=120 + 24 * len(names)))
    return plot
