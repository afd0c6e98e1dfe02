"""PKD, CWD, MGD, FGFI, FGD and DKD against their formulas, written out with loops over frames, channels and objects."""

import numpy as np
import pytest
import torch
from kd_pairs import ON_MAP, detector, distil, wide_detector
from test_kd_pivotal_logit import predictions, uneven, with_head

from pcdet.registry import ConfigError

ALL_CELLS = ON_MAP | {"SAMPLE": {"NUM": 10_000}}
CELLS = 32  # along x and y of the map that the head reads
LOW, SIZE = np.array([0.0, -5.12]), 0.32


def run(batch, node, **pair):
    """(loss, its logs, the module, the student's and the teacher's map as (B, C, cells) float64) of one step."""
    distiller, seen = distil(node, student=detector(), teacher=wide_detector(), **pair), []
    for model in (distiller.student, distiller.teacher):
        model.backbone_2d.register_forward_hook(lambda _m, _a, out: seen.append(out["spatial_features_2d"].detach()))
    torch.manual_seed(5)
    logs = distiller(batch)[1]
    name = node["NAME"]
    teacher, student = (dense.flatten(2).double().numpy() for dense in seen)
    own = {key.rpartition("/")[2]: value for key, value in logs.items() if key.startswith(f"kd/{name}/")}
    return logs[f"kd/{name}"], own, distiller.losses[name].double(), student, teacher


def adapted(loss, student):
    """(B, C, cells) through the loss's linear map or 1x1 convolution."""
    weight = loss.student_adapter.weight.detach().flatten(1).numpy()
    return np.einsum("ij,bjn->bin", weight, student) + loss.student_adapter.bias.detach().numpy()[None, :, None]


# ---------------------------------------------------------------------------------------------------- sets of rows


def test_pkd_is_half_the_squared_difference_of_standardised_channels(batch):
    value, logs, loss, student, teacher = run(batch, {"NAME": "PKD", "WEIGHT": 6.0} | ALL_CELLS)
    student, terms, correlations = adapted(loss, student), [], []
    for a, b in zip(student, teacher, strict=True):
        for x, y in zip(a, b, strict=True):
            x, y = (x - x.mean()) / np.sqrt(x.var() + 1e-8), (y - y.mean()) / np.sqrt(y.var() + 1e-8)
            terms.append(((x - y) ** 2).mean() / 2)
            correlations.append((x * y).mean())
    assert value == pytest.approx(6 * np.mean(terms), rel=1e-4)
    assert logs["correlation"] == pytest.approx(np.mean(correlations), rel=1e-3, abs=1e-5)


def test_pkd_does_not_see_the_teachers_scale_and_offset(batch):
    values = []
    for scale, offset in ((1.0, 0.0), (7.0, 3.0)):
        distiller = distil({"NAME": "PKD"} | ALL_CELLS)
        head_map = distiller.teacher.backbone_2d
        head_map.register_forward_hook(
            lambda _m, _a, out, a=scale, b=offset: {**out, "spatial_features_2d": a * out["spatial_features_2d"] + b}
        )
        values.append(distiller(batch)[1]["kd/PKD"])
    assert values[1] == pytest.approx(values[0], rel=1e-3)


@pytest.mark.parametrize("temperature", [0.2, 2.0])
def test_cwd_is_the_divergence_over_the_cells_of_a_frame(batch, temperature):
    node = {"NAME": "CWD", "TEMPERATURE": temperature, "WEIGHT": 10.0} | ALL_CELLS
    value, logs, loss, student, teacher = run(batch, node)
    student, terms, effective = adapted(loss, student), [], []
    for a, b in zip(student, teacher, strict=True):
        for x, y in zip(a, b, strict=True):
            p, q = np.exp(y / temperature), np.exp(x / temperature)
            p, q = p / p.sum(), q / q.sum()
            terms.append((p * np.log(p / q)).sum())
            effective.append(1 / (p**2).sum())
    assert value == pytest.approx(10 * temperature**2 * np.mean(terms), rel=1e-3)
    assert logs["ess"] == pytest.approx(np.mean(effective), rel=1e-3)


# --------------------------------------------------------------------------------------------------------- whole maps


def test_mgd_makes_the_teachers_map_from_unmasked_cells(batch):
    value, logs, loss, student, teacher = run(batch, {"NAME": "MGD", "MASK_RATIO": 0.65, "WEIGHT": 3.0} | ON_MAP)
    torch.manual_seed(5)
    kept = torch.rand(CELLS, CELLS).numpy() >= 0.65
    assert 0.25 < kept.mean() < 0.45
    made = adapted(loss, student).reshape(len(student), -1, CELLS, CELLS) * kept
    for layer, last in ((loss.generator[0], False), (loss.generator[2], True)):
        made = convolved(made, layer.weight.detach().numpy(), layer.bias.detach().numpy())
        made = made if last else np.maximum(made, 0)
    assert value == pytest.approx(3 * ((made.reshape(teacher.shape) - teacher) ** 2).mean(), rel=1e-4)
    variance = teacher.transpose(1, 0, 2).reshape(teacher.shape[1], -1).var(axis=1).mean()
    assert logs["unexplained"] == pytest.approx(value / 3 / variance, rel=1e-3)


def convolved(maps, weight, bias):
    """A 3x3 convolution with padding, as nine products."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(maps), len(weight), CELLS, CELLS)) + bias[None, :, None, None]
    for dy in range(3):
        for dx in range(3):
            out += np.einsum("oc,bchw->bohw", weight[:, :, dy, dx], padded[:, :, dy : dy + CELLS, dx : dx + CELLS])
    return out


def test_mgd_draws_another_mask_in_every_step(batch):
    distiller = distil({"NAME": "MGD"} | ON_MAP)
    first, second = (distiller(batch)[1]["kd/MGD"] for _ in range(2))
    assert first != second


def outline(box):
    """[x1, y1, x2, y2] of a box whose heading is taken for the nearest axis."""
    turned = abs(np.sin(box[6])) > abs(np.cos(box[6]))
    half = np.array([box[4], box[3]] if turned else [box[3], box[4]]) / 2
    return np.concatenate([box[:2] - half, box[:2] + half])


def iou(a, b):
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = sides.prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def imitated_cells(head, boxes, threshold):
    """(cells,) of one frame by FGFI's rule, an object and an anchor at a time."""
    anchors = head.anchor_table.double().numpy()
    per_cell = head.num_anchors_per_location
    found = np.zeros(len(anchors) // per_cell, dtype=bool)
    for box in boxes:
        own = [i for i in range(len(anchors)) if i % per_cell // 2 == int(box[7]) - 1]  # two headings of each class
        overlaps = {i: iou(outline(anchors[i]), outline(box)) for i in own}
        best = max(overlaps.values())
        for i, overlap in overlaps.items():
            found[i // per_cell] |= overlap > threshold * best
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_fgfi_imitates_the_cells_whose_anchors_are_near_an_object(batch, threshold):
    batch = uneven(batch)
    node = {"NAME": "FGFI", "THRESHOLD": threshold, "WEIGHT": 0.01} | ON_MAP
    value, logs, loss, student, teacher = run(batch, node)
    student, terms, counts, head = adapted(loss, student), [], [], detector().dense_head
    for a, b, boxes in zip(student, teacher, batch["gt_boxes"].double().numpy(), strict=True):
        cells = imitated_cells(head, boxes[boxes[:, 7] > 0], threshold)
        counts.append(cells.sum())
        terms.append(((a - b)[:, cells] ** 2).sum() / (2 * cells.sum()))
    assert counts[0] != counts[1] and min(counts) > 3
    assert logs["cells"] == np.mean(counts)
    assert value == pytest.approx(0.01 * np.mean(terms), rel=1e-4)


def test_a_frame_without_objects_halves_fgfi(batch):
    emptied = {**batch, "gt_boxes": batch["gt_boxes"].clone()}
    emptied["gt_boxes"][1] = 0
    terms = []
    for given in (batch, emptied):
        _, _, loss, student, teacher = run(given, {"NAME": "FGFI"} | ON_MAP)
        student = adapted(loss, student)
        cells = imitated_cells(detector().dense_head, given["gt_boxes"][0].double().numpy(), 0.5)
        terms.append(((student - teacher)[0][:, cells] ** 2).sum() / (2 * cells.sum()))
    assert run(emptied, {"NAME": "FGFI"} | ON_MAP)[0] == pytest.approx(0.01 * terms[1] / 2, rel=1e-4)


def object_masks(boxes):
    """[(cells,) bool for each object] by the corners' half-planes, the cell of the centre among them."""
    index = np.arange(CELLS * CELLS)
    centres = LOW + (np.stack([index % CELLS, index // CELLS], axis=1) + 0.5) * SIZE
    masks = []
    for box in boxes:
        turn = np.array([[np.cos(box[6]), -np.sin(box[6])], [np.sin(box[6]), np.cos(box[6])]])
        corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * box[3:5] / 2 @ turn.T + box[:2]
        edges = np.roll(corners, -1, axis=0) - corners
        offset = centres[:, None] - corners[None]
        inside = (edges[None, :, 0] * offset[:, :, 1] - edges[None, :, 1] * offset[:, :, 0] >= 0).all(axis=1)
        column, row = ((box[:2] - LOW) // SIZE).astype(int)
        inside[row * CELLS + column] = True
        masks.append(inside)
    return masks


def fgd(loss, student, teacher, frames_of_boxes):
    """[foreground, background, attention, relation] of the source's sums, a mean over the frames."""
    parts = np.zeros(4)
    cells, channels = student.shape[2], student.shape[1]

    def softmax(x):
        return np.exp(x - x.max()) / np.exp(x - x.max()).sum()

    for a, b, boxes in zip(student, teacher, frames_of_boxes, strict=True):
        attention = [
            (cells * softmax(np.abs(x).mean(axis=0) / 0.5), channels * softmax(np.abs(x).mean(axis=1) / 0.5))
            for x in (a, b)
        ]
        weights = np.zeros(cells)
        for mask in object_masks(boxes[boxes[:, 7] > 0]):
            weights[mask] = np.maximum(weights[mask], 1 / mask.sum())
        rest = (weights == 0) / (weights == 0).sum()
        (own_cells, own_channels), (wanted_cells, wanted_channels) = attention
        for channel in range(channels):
            squares = (a[channel] - b[channel]) ** 2 * wanted_cells * wanted_channels[channel]
            parts[0] += 1e-3 * (squares * weights).sum()
            parts[1] += 5e-4 * (squares * rest).sum()
        parts[2] += 5e-4 * (np.abs(own_cells - wanted_cells).sum() + np.abs(own_channels - wanted_channels).sum())
        related = [with_context(block, x) for block, x in ((loss.student_context, a), (loss.teacher_context, b))]
        parts[3] += 5e-6 * ((related[0] - related[1]) ** 2).sum()
    return parts / len(student)


def with_context(block, x):
    """A map (C, cells) with GCNet's context added."""
    logits = (block.attend.weight.detach().numpy().reshape(-1, 1) * x).sum(axis=0)
    share = np.exp(logits - logits.max())
    context = x @ (share / share.sum())
    first, norm, _, last = block.transform
    hidden = first.weight.detach().numpy() @ context + first.bias.detach().numpy()
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + norm.eps)
    hidden = np.maximum(hidden * norm.weight.detach().numpy() + norm.bias.detach().numpy(), 0)
    return x + (last.weight.detach().numpy() @ hidden + last.bias.detach().numpy())[:, None]


def test_fgd_has_the_sources_four_parts(batch):
    batch = uneven(batch)
    value, logs, loss, student, teacher = run(batch, {"NAME": "FGD"} | ON_MAP)
    wanted = fgd(loss, adapted(loss, student), teacher, batch["gt_boxes"].double().numpy())
    found = [logs[name] for name in ("foreground", "background", "attention", "relation")]
    assert found == pytest.approx(wanted, rel=1e-3) and min(wanted) > 0
    assert value == pytest.approx(wanted.sum(), rel=1e-3)


# ----------------------------------------------------------------------------------------------------------- the head


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_dkd_weighs_the_score_of_the_objects_class_and_the_others_apart(batch, temperature):
    node = {"NAME": "DKD", "ALPHA": 1.5, "BETA": 0.5, "TEMPERATURE": temperature, "WEIGHT": 2.0}
    distiller = distil(node, student=with_head(0), teacher=with_head(1))
    logs = distiller(uneven(batch))[1]
    labels = predictions(distiller, uneven(batch))[-1]
    given, wanted = (
        model.dense_head.forward_ret_dict["cls_preds"].detach().double().numpy().reshape(*labels.shape, 3) / temperature
        for model in (distiller.student, distiller.teacher)
    )

    def divergence(s, t):
        log_s, log_t = ((-np.logaddexp(0, -x), -np.logaddexp(0, x)) for x in (s, t))  # of yes and of no
        return sum(np.exp(of_t) * (of_t - of_s) for of_s, of_t in zip(log_s, log_t, strict=True))

    target, others = np.zeros(len(labels)), np.zeros(len(labels))
    for where in np.ndindex(labels.shape):
        for k in range(3) if labels[where] > 0 else ():
            part = target if k == labels[where] - 1 else others
            part[where[0]] += temperature**2 * divergence(given[where][k], wanted[where][k])
    counts = (labels > 0).sum(axis=(1, 2))
    assert counts[0] != counts[1]
    expected = [1.5 * np.mean(target / counts), 0.5 * np.mean(others / counts)]
    assert [logs["kd/DKD/target"], logs["kd/DKD/others"]] == pytest.approx(expected, rel=1e-3)
    assert logs["kd/DKD"] == pytest.approx(2 * sum(expected), rel=1e-3)


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "node, message",
    [
        ({"NAME": "CWD", "TEMPERATURE": 0.0} | ON_MAP, "TEMPERATURE must be above 0, got 0.0"),
        ({"NAME": "MGD", "MASK_RATIO": 1.0} | ON_MAP, "MASK_RATIO must be at least 0 and below 1, got 1.0"),
        ({"NAME": "FGFI", "THRESHOLD": 1.0} | ON_MAP, "THRESHOLD must be at least 0 and below 1, got 1.0"),
        ({"NAME": "FGD", "BETA": -1.0} | ON_MAP, "ALPHA, BETA, GAMMA and RELATION at least 0"),
        ({"NAME": "DKD", "BETA": -1.0}, "ALPHA and BETA at least 0, got 1.0, 1.0 and -1.0"),
        ({"NAME": "FGD", "FEATURE": "pillar_features"}, "FGD compares maps, but tap 'pillar_features' is a set"),
    ],
)
def test_wrong_constants_and_taps_are_named(node, message):
    with pytest.raises(ConfigError, match=message):
        distil(node)


def test_fgfi_takes_a_map_of_the_heads_cells(batch):
    distiller = distil({"NAME": "FGFI", "FEATURE": "spatial_features"})
    with pytest.raises(ValueError, match=r"anchors, which stand on \(32, 32\) cells.*has \(64, 64\).*head's stride"):
        distiller(batch)


@pytest.mark.parametrize("name", ["FGFI", "FGD"])
def test_what_looks_at_objects_needs_their_boxes(batch, name):
    distiller = distil({"NAME": name} | ON_MAP)
    loss = distiller.losses[name]
    forward = loss.forward

    def without_boxes(step, **keys):
        step.batch = {key: value for key, value in step.batch.items() if key != "gt_boxes"}
        return forward(step, **keys)

    loss.forward = without_boxes
    with pytest.raises(ValueError, match=f"{name} needs gt_boxes, which this batch lacks"):
        distiller(batch)
