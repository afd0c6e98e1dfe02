"""Targets that do not collapse, and the loss restated: by its published formula, and with tensors of edges."""

import pytest
import torch
from kd_pairs import PILLARS, distil, step

from pcdet.models.kd.graphs.embedding import EdgeEmbedding
from pcdet.models.kd.losses import point_distiller
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.step import Step
from pcdet.ops.edge_conv.reference import edge_conv

# -------------------------------------------------------------------------------------------------- 9: no collapse

FROZEN = {"ADAPTER": {"TEACHER": "frozen", "STUDENT": "linear_bn_relu", "DIM": 16}}
TRAINED = {"ADAPTER": {"TEACHER": "linear_bn_relu", "STUDENT": "linear_bn_relu", "DIM": 16}}


def train_adapters(node, related, steps=300):
    """(distiller, first and last log) of training nothing but the adapters on two fixed sets of features."""
    generator = torch.Generator().manual_seed(0)
    taught = torch.randn(200, 16, generator=generator).relu()
    given = torch.randn(200, 8, generator=generator).relu()
    if related:
        given = (taught @ torch.randn(16, 8, generator=generator) + 0.3 * given).relu()
    coords = torch.zeros(200, 4)
    coords[:, 2], coords[:, 3] = torch.arange(200) // 64, torch.arange(200) % 64
    batch = {"batch_size": 1, "voxel_coords": coords, "voxel_num_points": torch.full((200,), 32.0)}
    distiller = distil(node | {"SAMPLE": {"NUM": 100}, "GRAPH": {"K": 8}})
    loss = distiller.losses["PointDistiller"]
    outputs = [ModelOutputs(None, batch, {"pillar_features": x}, distiller.geometry) for x in (given, taught)]
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    first = last = None
    for i in range(steps):
        value, last = loss(Step(*outputs, batch), diagnose=i in (0, steps - 1))
        first = first or last
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return distiller, first, last


@pytest.mark.parametrize(
    "keys, keeps",
    [
        ({}, True),
        (FROZEN, True),
        ({"PRESET": "official"}, False),
        ({"PRESET": "paper"}, False),
        ({"ADAPTER": {"TEACHER": "linear", "STUDENT": "linear"}}, False),
    ],
)
def test_the_target_keeps_its_variance_against_unrelated_features(keys, keeps, caplog):
    """B6: with both adapters trained and norms with scale, both outputs go to zero instead of towards each other."""
    distiller, _, last = train_adapters(PILLARS | keys, related=False)
    ratio = float(last["target_var_ratio"])
    assert ratio >= 0.5 if keeps else ratio < 0.05
    distiller._watch({"kd/PointDistiller/target_var_ratio": ratio})
    assert ("variance of its target has fallen" in caplog.text) != keeps


def test_a_trained_target_forgets_the_teacher_although_it_keeps_its_variance():
    """Norms without scale are not enough: the adapters agree on what is easy, which only ``explained`` shows."""
    _, first, last = train_adapters(PILLARS | TRAINED, related=True)
    assert float(last["target_var_ratio"]) > 0.5
    assert float(last["explained"]) < 0.85 * float(first["explained"])
    _, first, last = train_adapters(PILLARS | FROZEN, related=True, steps=3)
    assert float(last["explained"]) == pytest.approx(float(first["explained"]), rel=1e-5)


# ------------------------------------------------------------------------------- 10: the released formula, restated


def test_official_preset_equals_an_independent_restatement_of_the_formula(batch):
    """2 mean(w (T - S)^2) of adapted [neighbour; centre] edges, on the flattened batch (kd.md 1b, steps 1 to 6)."""
    distiller = distil(PILLARS | {"PRESET": "official", "SAMPLE": {"NUM": 60}, "GRAPH": {"K": 9}})
    loss = distiller.losses["PointDistiller"]
    taught = distiller.teacher.train().forward_features(dict(batch))["pillar_features"].detach()
    given = distiller.student.forward_features(dict(batch))["pillar_features"].detach()
    # distinct counts, so that the selection is not a matter of ties
    batch["voxel_num_points"] = torch.randperm(len(given)).float() / 40 + 1
    outputs = [ModelOutputs(None, batch, {"pillar_features": x}, distiller.geometry) for x in (given, taught)]
    value = 2 * loss(Step(*outputs, batch))[0].detach()

    count = batch["voxel_num_points"]
    centres = count.topk(60).indices
    neighbours = torch.cdist(taught[centres], taught).topk(9, largest=False).indices
    adapted = []
    for x, adapter in ((taught, loss.teacher_adapter), (given, loss.student_adapter)):
        edges = torch.cat([x[neighbours], x[centres][:, None].expand(-1, 9, -1)], dim=2) @ adapter.conv.weight.T
        flat = edges.flatten(0, 1)
        normed = (flat - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()
        adapted.append((normed * adapter.bn.weight + adapter.bn.bias).relu().view_as(edges))
    weight = (count[centres] / 0.01).softmax(0) * 60
    wanted = 2 * (weight[:, None, None] * (adapted[0] - adapted[1]).square()).mean()
    torch.testing.assert_close(value, wanted.detach(), rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------ without and with tensors of edges


class WithEdges(EdgeEmbedding):
    """An embedding that holds every edge, made by the readable edge convolution."""

    @classmethod
    def of(cls, adapter, rows, centres, graph, *, pool):
        conv, bn = getattr(adapter, "conv", None), getattr(adapter, "bn", None)
        weight, bias = (None, None) if conv is None else (conv.weight, conv.bias)
        act = None if bn is None else torch.relu
        inputs = rows, rows[centres], graph.idx.long(), weight, bias
        made = edge_conv(*inputs, edge=adapter.edge, norm=bn, activation=act, reduce=pool)
        return cls(made, graph, None if pool == "none" else made)

    def squared_distance(self, other):
        return (self.edges - other.edges).square().flatten(1).sum(dim=1)

    def numel(self):
        there = self.graph.degree.clamp(min=1) if self.pooled is None else 1
        return self.edges.shape[-1] * there

    def largest(self):
        return self.edges.flatten(1).amax(dim=1)

    def mean(self):
        return self.edges if self.pooled is not None else self.edges.mean(dim=1)

    def sample_rows(self):
        return self.edges.flatten(0, -2)


@pytest.mark.parametrize("edge", ["concat", "diff"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"DISTANCE": "norm"},
        {"DISTANCE": "dist", "ADAPTER": {"TEACHER": "linear", "STUDENT": "linear", "DIM": 7}},
        {"ADAPTER": {"TEACHER": "frozen", "STUDENT": "linear_bn_relu"}},
        {"ADAPTER": {"TEACHER": "none", "STUDENT": "linear_bn_relu"}},
        {"PRESET": "official"},
        {"PRESET": "paper", "REWEIGHT": {"BY": "graph_max", "TEMPERATURE": 0.5}},
        {"GRAPH": {"POOL": "max"}, "ADAPTER": {"TEACHER": "frozen", "STUDENT": "linear"}},
        {"GRAPH": {"POOL": "mean"}, "ADAPTER": {"TEACHER": "none", "STUDENT": "linear_bn_relu"}},
    ],
    ids=range(9),
)
def test_the_loss_without_edges_equals_the_one_with_them(batch, edge, keys, monkeypatch):
    # more neighbours than there are rows, so that some are missing
    node = PILLARS | keys | {"GRAPH": {"K": 250, "EDGE": edge} | keys.get("GRAPH", {})}
    results = []
    for kind in (EdgeEmbedding, WithEdges):
        monkeypatch.setattr(point_distiller, "EdgeEmbedding", kind)
        distiller = distil(node).double()
        wide = {k: v.double() if torch.is_tensor(v) else v for k, v in batch.items()}
        value = step(distiller, wide)["kd/PointDistiller"]
        loss = distiller.losses["PointDistiller"]
        gradients = [p.grad for p in (distiller.student.vfe.pfn_layers[0].linear.weight, *loss.parameters())]
        results.append((value, [g for g in gradients if g is not None], list(loss.buffers())[1:]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for a, b in zip(*(gradients + buffers for _, gradients, buffers in results), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
