"""PointDistiller's two parts, graphs and weights, each switched off by itself, and the warning of a free target.

The expected losses are written out in numpy, frame by frame and centre by centre.
"""

import numpy as np
import pytest
from kd_pairs import PILLARS, distil
from row_set_cases import Rows, loss_on_pillars

NUM, K, TEMPERATURE = 5, 3, 2.0
COUNTS = [4, 9, 1, 7, 2, 8, 3, 6, 2, 5, 1]  # all different in a frame, so that ties decide nothing
ADAPTERS = {
    "edges": {"TEACHER": "none", "STUDENT": "linear"},
    "normed": {"TEACHER": "frozen", "STUDENT": "linear_bn_relu", "DIM": 6},
}


def vectors(x, centres, neighbours):
    """(n, k, 2 C) edges [neighbour; centre], or (n, 1, C) rows where there are no neighbours."""
    if neighbours is None:
        return x[centres][:, None]
    return np.stack([[np.concatenate([x[j], x[i]]) for j in js] for i, js in zip(centres, neighbours, strict=True)])


def adapted(adapter, frames):
    """What an adapter makes of the vectors of all frames; batch statistics are taken over all of them."""
    if adapter.kind == "none":
        return frames
    weight = adapter.conv.weight.detach().double().numpy()
    bias = 0 if adapter.conv.bias is None else adapter.conv.bias.detach().double().numpy()
    frames = [x @ weight.T + bias for x in frames]
    if adapter.kind == "linear":
        return frames
    rows = np.concatenate([x.reshape(-1, x.shape[-1]) for x in frames])
    mean, deviation = rows.mean(axis=0), np.sqrt(rows.var(axis=0) + 1e-5)
    return [np.maximum((x - mean) / deviation, 0) for x in frames]


def restated(loss, frames, *, has_graph, has_weights):
    """The mean over the frames of the weighted mean over their centres."""
    given, wanted, weights = [], [], []
    for student, teacher, counts in frames:
        centres = np.argsort(-counts)[:NUM]
        distances = ((teacher[centres][:, None] - teacher[None]) ** 2).sum(axis=2)
        neighbours = np.argsort(distances, axis=1)[:, :K] if has_graph else None
        given.append(vectors(student, centres, neighbours))
        wanted.append(vectors(teacher, centres, neighbours))
        share = np.exp(counts[centres] / TEMPERATURE)
        weights.append(len(centres) * share / share.sum() if has_weights else np.ones(len(centres)))
    given, wanted = adapted(loss.student_adapter, given), adapted(loss.teacher_adapter, wanted)
    squares = [((a - b) ** 2).mean(axis=(1, 2)) for a, b in zip(given, wanted, strict=True)]
    return np.mean([(w * s).mean() for w, s in zip(weights, squares, strict=True)])


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("has_weights", [True, False], ids=["weights", "equal"])
@pytest.mark.parametrize("has_graph", [True, False], ids=["graphs", "rows"])
def test_graphs_and_weights_are_switched_off_apart(has_graph, has_weights, adapter):
    node = {
        "NAME": "PointDistiller",
        "SAMPLE": {"NUM": NUM, "BY": "num_points"},
        "GRAPH": {"K": K, "SPACE": "feature", "EDGE": "concat" if has_graph else "none"},
        "REWEIGHT": {"BY": "num_points", "TEMPERATURE": TEMPERATURE} if has_weights else None,
        "ADAPTER": ADAPTERS[adapter],
    }
    loss, rows = loss_on_pillars(node), Rows(counts=COUNTS)
    given, student = rows.step()
    value, logs = loss(given)
    expected = restated(loss, rows.frames(), has_graph=has_graph, has_weights=has_weights)
    assert value.item() == pytest.approx(expected, rel=1e-4) and expected > 0.01
    assert logs["nodes"] == np.mean([5, 4])
    value.backward()
    untaught = sorted(np.flatnonzero(~student.grad.any(dim=1).numpy()))
    if not has_graph:  # then the rows that are no centres are not looked at
        assert untaught == [2, 4]


@pytest.mark.parametrize("keys", [{"POOL": "max"}, {"K": 1}, {"SPACE": "bev"}, {"CANDIDATES": 2}], ids=str)
def test_without_a_graph_its_keys_change_nothing(keys):
    values = []
    for graph in ({}, keys):
        loss = loss_on_pillars({"NAME": "PointDistiller", "GRAPH": {"EDGE": "none"} | graph})
        values.append(loss(Rows(counts=COUNTS).step()[0])[0].item())
    assert values[0] == values[1] > 0


@pytest.mark.parametrize(
    "keys, named",
    [
        ({}, None),
        ({"ADAPTER": {"TEACHER": "frozen", "STUDENT": "linear_bn_relu", "AFFINE": True}}, None),
        ({"ADAPTER": {"TEACHER": "linear_bn_relu", "STUDENT": "linear_bn_relu"}}, None),
        ({"PRESET": "official", "WEIGHT": 0.0}, None),
        ({"PRESET": "official"}, "ADAPTER.TEACHER linear_bn_relu with AFFINE True"),
        ({"PRESET": "paper"}, "ADAPTER.TEACHER linear_bn_relu with AFFINE True"),
        ({"ADAPTER": {"TEACHER": "linear", "STUDENT": "linear"}}, "ADAPTER.TEACHER linear)"),
    ],
    ids=str,
)
def test_a_target_that_is_free_to_vanish_is_warned_of_before_the_first_step(keys, named, caplog):
    distil(PILLARS | keys)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (named is not None)
    if named:
        assert named in warnings[0] and "ADAPTER.TEACHER to frozen or none" in warnings[0]
        assert warnings[0].startswith("KD loss PointDistiller:")


def test_there_is_one_warning_for_all_such_losses(caplog):
    distil(PILLARS, PILLARS | {"PRESET": "official"}, PILLARS | {"PRESET": "paper"})
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("KD loss PointDistiller_2, PointDistiller_3:")
