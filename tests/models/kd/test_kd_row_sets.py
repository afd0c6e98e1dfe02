"""Methods on the rows of a frame against their formulas, written out in numpy, and what they promise beside."""

import numpy as np
import pytest
import torch
from kd_pairs import detector, distil, step, train, wide_detector
from row_set_cases import Rows, linear, loss_on_pillars, make_identity

from pcdet.models.kd.losses.overhaul import negative_mean
from pcdet.models.kd.losses.row_set_loss import RowSets, root, unit_length
from pcdet.registry import ConfigError

NORM = "backbone_2d.deblocks.0.1"
METHODS = {  # those whose formula is 0 where teacher and student are the same
    "AttentionTransfer": {},
    "SimilarityPreserving": {},
    "RKD": {},
    "FeatureBased": {},
    "Overhaul": {"MARGIN": "zero"},
    "PKD": {},
    "CWD": {},
}
every_method = pytest.mark.parametrize("name", [*METHODS, "CRD"])


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def unit(x):
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------------------------------- the formulas, frame by frame


def attention_transfer(loss, s, t, counts):
    occupied = counts > 0 if loss.occupied else counts >= 0
    q = [(np.abs(x[occupied]) ** loss.power).mean(axis=1) for x in (s, t)]
    return ((q[0] / np.sqrt((q[0] ** 2).sum()) - q[1] / np.sqrt((q[1] ** 2).sum())) ** 2).mean()


def similarity_preserving(_loss, s, t, _counts):
    return ((unit(s @ s.T) - unit(t @ t.T)) ** 2).sum() / len(s) ** 2


def rkd(loss, s, t, _counts):
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
    relative = []
    for x in (s, t):
        x = unit(x) if loss.unit_rows else x
        d = np.array([np.sqrt(((x[i] - x[j]) ** 2).sum()) for i, j in pairs])
        relative.append(d / d.mean())
    delta = np.abs(relative[0] - relative[1])
    return np.where(delta < 1, delta**2 / 2, delta - 0.5).mean()


def crd(loss, s, t, _counts):
    a, b = unit(linear(loss.student_adapter, s)), unit(linear(loss.teacher_adapter, t))
    p = softmax(a @ b.T / loss.temperature, axis=1), softmax(b @ a.T / loss.temperature, axis=1)
    return -sum(np.log(np.diag(x)).mean() for x in p)


def feature_based(loss, s, t, _counts):
    n, c = t.shape
    adapted = linear(loss.mask_adapter, s)
    rows = sum(n * softmax(np.abs(x).mean(axis=1) / loss.temperature) for x in (s, t)) / 2
    channels = sum(c * softmax(np.abs(x).mean(axis=0) / loss.temperature) for x in (adapted, t)) / 2
    related = [x + softmax(x @ x.T / np.sqrt(x.shape[1]), axis=1) @ x for x in (s, t)]
    parts = (
        np.sqrt(rows[:, None] * channels) * (adapted - t),
        linear(loss.channel_adapter, s.mean(axis=0)) - t.mean(axis=0),
        linear(loss.spatial_adapter, s.mean(axis=1)[:, None])[:, 0] - t.mean(axis=1),
        linear(loss.relation_adapter, related[0]) - related[1],
    )
    return sum(w * np.linalg.norm(part) for w, part in zip((7e-5, 4e-3, 4e-3, 7e-5), parts, strict=True))


def overhaul(loss, s, t, _counts):
    margin = loss.margin.double().numpy()
    ours, total = linear(loss.student_adapter, s), 0.0
    for a, b in zip(ours, t, strict=True):
        for channel, (x, y) in enumerate(zip(a, b, strict=True)):
            y = max(y, margin[channel])
            total += (x - y) ** 2 if x > y or y > 0 else 0
    return total / t.size


def pkd(loss, s, t, _counts):
    z = [(x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-8) for x in (linear(loss.student_adapter, s), t)]
    return ((z[0] - z[1]) ** 2).mean() / 2


def cwd(loss, s, t, _counts):
    q, p = (softmax(x / loss.temperature, axis=0) for x in (linear(loss.student_adapter, s), t))
    return loss.temperature**2 * (p * np.log(p / q)).sum(axis=0).mean()


FORMULAS = {
    "AttentionTransfer": attention_transfer,
    "SimilarityPreserving": similarity_preserving,
    "RKD": rkd,
    "CRD": crd,
    "FeatureBased": feature_based,
    "Overhaul": overhaul,
    "PKD": pkd,
    "CWD": cwd,
}


@pytest.mark.parametrize(
    "node",
    [
        {"NAME": "AttentionTransfer"},
        {"NAME": "AttentionTransfer", "POWER": 3.0},
        {"NAME": "SimilarityPreserving"},
        {"NAME": "RKD"},
        {"NAME": "RKD", "UNIT_ROWS": False},
        {"NAME": "CRD"},
        {"NAME": "CRD", "DIM": 5, "TEMPERATURE": 0.5},
        {"NAME": "FeatureBased"},
        {"NAME": "FeatureBased", "TEMPERATURE": 0.1},
        {"NAME": "Overhaul", "MARGIN": "zero"},
        {"NAME": "PKD"},
        {"NAME": "CWD"},
        {"NAME": "CWD", "TEMPERATURE": 0.3},
    ],
    ids=str,
)
def test_a_loss_is_the_mean_of_its_formula_over_the_frames_that_have_rows(node):
    loss, rows = loss_on_pillars(node), Rows()
    expected = np.mean([FORMULAS[node["NAME"]](loss, *frame) for frame in rows.frames()])
    value, logs = loss(rows.step()[0])
    assert value.item() == pytest.approx(expected, rel=1e-4) and expected > 0
    assert logs["nodes"] == pytest.approx(np.mean([7, 4]))


def test_attention_on_a_map_is_that_of_its_rows(batch):
    """The map's way does not copy the rows."""
    distiller = distil({"NAME": "AttentionTransfer", "FEATURE": "spatial_features_2d", "OCCUPIED": False})
    seen = []
    for model in (distiller.student, distiller.teacher):
        model.backbone_2d.register_forward_hook(lambda _m, _a, out: seen.append(out["spatial_features_2d"].detach()))
    logs = distiller(batch)[1]
    frames = zip(*(x.double().permute(0, 2, 3, 1).flatten(1, 2).numpy() for x in seen), strict=True)
    loss = distiller.losses["AttentionTransfer"]
    expected = np.mean([attention_transfer(loss, b, a, np.ones(len(a))) for a, b in frames])
    assert logs["kd/AttentionTransfer"] == pytest.approx(1000 * expected, rel=1e-4) and expected > 0


@pytest.mark.parametrize("occupied", [True, False])
def test_attention_is_over_the_occupied_rows_unless_told_otherwise(occupied):
    rows = Rows(counts=[3, 0, 1, 0, 0, 2, 5, 1, 0, 1, 1])
    loss = loss_on_pillars({"NAME": "AttentionTransfer", "OCCUPIED": occupied})
    expected = np.mean([attention_transfer(loss, *frame) for frame in rows.frames()])
    value, logs = loss(rows.step()[0])
    assert value.item() == pytest.approx(expected, rel=1e-4)
    assert logs["nodes"] == ((4 + 3) / 2 if occupied else (7 + 4) / 2)


def test_frames_without_an_occupied_row_have_no_attention():
    rows = Rows(sizes=(3, 2), counts=[1, 2, 3, 0, 0])
    loss = loss_on_pillars({"NAME": "AttentionTransfer"})
    assert loss(rows.step()[0])[0].item() == pytest.approx(attention_transfer(loss, *rows.frames()[0]), rel=1e-4)
    value, _ = loss(Rows(sizes=(3,), counts=[0, 0, 0]).step()[0])
    value.backward()
    assert value.item() == 0


def test_the_margin_of_a_norm_decides_what_a_relu_has_dropped():
    loss, rows = loss_on_pillars({"NAME": "Overhaul", "MARGIN": "zero"}), Rows()
    loss.margin = torch.linspace(-1.5, -0.01, 16)
    expected = np.mean([overhaul(loss, *frame) for frame in rows.frames()])
    assert loss(rows.step()[0])[0].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mean, deviation", [(0.0, 1.0), (0.4, 0.7), (-2.0, 0.3), (1.0, 0.5)])
def test_the_margin_is_the_mean_of_a_normal_variable_where_it_is_negative(mean, deviation):
    x = np.linspace(mean - 12 * deviation, 0, 400_001)
    density = np.exp(-0.5 * ((x - mean) / deviation) ** 2)
    expected = (x * density).sum() / density.sum()
    found = negative_mean(torch.tensor([mean]), torch.tensor([deviation])).item()
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_channel_that_is_hardly_ever_negative_has_a_margin_of_three_deviations():
    assert negative_mean(torch.tensor([4.0]), torch.tensor([0.5])).item() == pytest.approx(-1.5)


# ---------------------------------------------------------------------------------------------------- what they promise


@pytest.mark.parametrize("name", METHODS)
def test_a_teacher_that_is_its_own_student_has_nothing_to_teach(name):
    node = {"NAME": name} | METHODS[name]
    loss = loss_on_pillars(node, student=detector(), teacher=detector(seed=3))
    for layer in loss.modules():
        if isinstance(layer, torch.nn.Linear):
            make_identity(layer)
    given, student = Rows(equal=True).step()
    value, _ = loss(given)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-7) and bool(student.grad.isfinite().all())
    shuffled = Rows(equal=True)
    shuffled.teacher = np.roll(shuffled.teacher, 1, axis=0)
    assert loss(shuffled.step()[0])[0].item() > 1e-4


@every_method
def test_the_order_of_rows_and_another_frame_change_nothing_in_a_frames_term(name):
    loss = loss_on_pillars({"NAME": name} | METHODS.get(name, {}))
    first, second, both = Rows(sizes=(9,), seed=1), Rows(sizes=(5,), seed=2), Rows(sizes=(9, 5))
    for key in ("student", "teacher", "counts"):
        setattr(both, key, np.concatenate([getattr(first, key), getattr(second, key)]))
    both.coords = torch.cat([first.coords, second.coords + torch.tensor([1, 0, 0, 0])])
    alone = [loss(rows.step()[0])[0].item() for rows in (first, second)]
    assert loss(both.step()[0])[0].item() == pytest.approx(np.mean(alone), rel=1e-5)
    order = np.random.default_rng(0).permutation(14)
    for key in ("student", "teacher", "counts"):
        setattr(both, key, getattr(both, key)[order])
    both.coords = both.coords[torch.tensor(order)]
    assert loss(both.step()[0])[0].item() == pytest.approx(np.mean(alone), rel=1e-5)


@every_method
def test_rows_of_zeros_and_equal_rows_give_finite_gradients(name):
    loss, rows = loss_on_pillars({"NAME": name} | METHODS.get(name, {})), Rows()
    rows.student[:4], rows.teacher[2:5], rows.student[7:] = 0, 0, 1
    given, student = rows.step()
    value, _ = loss(given)
    value.backward()
    assert value.isfinite() and bool(student.grad.isfinite().all()) and student.grad.abs().max() < 1e6


@every_method
def test_training_lowers_the_loss(batch, name):
    node = {"NAME": name, "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 60}} | METHODS.get(name, {})
    totals, logs = train(distil(node), batch, steps=8)
    assert totals[-1] < totals[0]
    closeness = {"AttentionTransfer": "overlap", "SimilarityPreserving": "overlap", "RKD": "correlation"}
    if name in closeness:
        key = f"kd/{name}/{closeness[name]}"
        assert logs[0][key] < logs[-1][key] <= 1


def test_contrast_finds_the_matches_and_keeps_its_target():
    loss, rows = loss_on_pillars({"NAME": "CRD"}), Rows(sizes=(30, 30))
    rows.teacher = rows.student @ np.random.default_rng(5).normal(size=(8, 16))
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    logs = []
    for _ in range(60):
        value, log = loss(rows.step()[0], diagnose=True)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        logs.append(log)
    assert logs[0]["top1"] < 0.2 and logs[-1]["top1"] > 0.9
    assert logs[-1]["target_var"] > 0.5 * logs[0]["target_var"] and logs[-1]["explained"] > 0.9


def test_sets_of_rows_know_their_means_and_their_variance_over_all_frames():
    rows = np.random.default_rng(0).normal(size=(6, 3))
    given = torch.tensor(rows)
    sets = RowSets.of(given, given + 1, [4, 0, 2])
    assert sets.variance(sets.student).item() == pytest.approx(rows.var(axis=0).mean())
    means = np.stack([rows[:4].mean(axis=0), np.zeros(3), rows[4:].mean(axis=0)])
    assert sets.mean(sets.student).numpy() == pytest.approx(means)
    per_frame = torch.tensor([1.0, 50.0, 4.0])
    assert sets.over_frames(per_frame).item() == 2.5 and sets.total(sets.teacher)[1].tolist() == [0, 0, 0]


def test_a_row_of_length_zero_has_no_direction_and_the_root_no_slope_at_zero():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    y = unit_length(x)
    (y.sum() + root(x[0, 0])).backward()
    assert y.tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]
    assert x.grad[0].tolist() == [0, 0]


# ------------------------------------------------------------------------------------------------ overhaul's margin


def test_overhaul_reads_its_margin_off_the_norm_that_is_tapped(batch):
    teacher = wide_detector()
    norm = teacher.get_submodule(NORM)
    with torch.no_grad():
        norm.bias.uniform_(-1, 1)
        norm.weight.uniform_(0.5, 1.5)
    distiller = distil({"NAME": "Overhaul", "FEATURE": NORM, "SAMPLE": {"NUM": 60}}, teacher=teacher)
    loss = distiller.losses["Overhaul"]
    assert torch.equal(loss.margin, negative_mean(norm.bias, norm.weight)) and loss.margin.max() < 0
    logs = step(distiller, batch)
    assert logs["kd/Overhaul"] > 0 and 0 < logs["kd/Overhaul/active"] < 1
    assert "losses.Overhaul.margin" not in distiller.state_dict()


@pytest.mark.parametrize("feature", ["spatial_features_2d", "backbone_2d.blocks.1"])
def test_overhaul_refuses_a_margin_of_a_tap_that_is_no_norm(feature):
    with pytest.raises(ConfigError, match=r"MARGIN: norm needs a batch norm, but the teacher's tap .*deblocks\.0\.1"):
        distil({"NAME": "Overhaul", "FEATURE": feature})


@pytest.mark.parametrize(
    "node, message",
    [
        ({"NAME": "AttentionTransfer", "POWER": 0.5}, "POWER must be at least 1, got 0.5"),
        ({"NAME": "CRD", "DIM": 0}, "DIM must be at least 1 and TEMPERATURE above 0, got 0 and 0.07"),
        ({"NAME": "CRD", "TEMPERATURE": 0.0}, "TEMPERATURE above 0, got 128 and 0.0"),
        ({"NAME": "FeatureBased", "MASK_WEIGHT": -1.0}, "MASK_WEIGHT.* at least 0, got 0.5, -1.0"),
    ],
)
def test_impossible_keys_are_refused(node, message):
    with pytest.raises(ConfigError, match=message):
        distil(node | {"FEATURE": "pillar_features"})
