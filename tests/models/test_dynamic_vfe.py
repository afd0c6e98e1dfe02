"""Encoders that make their own voxels: against the ones with slots, empty frames, single points, precision, taps."""

import pytest
import torch
from models.pointpillars import SMALL_RANGE, dataset_facts, tiny_model_cfg
from torch import nn

from pcdet.models import build_network
from pcdet.models.backbones_3d.vfe import DynamicMeanVFE, DynamicPillarVFE, MeanVFE, PillarVFE
from pcdet.models.backbones_3d.vfe.dynamic_pillar_vfe import DynamicPFNLayer
from pcdet.models.description import DataFacts, describe
from pcdet.models.width import scale_model_cfg
from pcdet.ops.scatter import RowGroups
from pcdet.ops.voxel import voxelize

FACTS = dataset_facts(SMALL_RANGE)
PLACE = {"voxel_size": FACTS.voxel_size, "point_cloud_range": FACTS.point_cloud_range}


def _cloud(frames=(500, 300), dtype=torch.float32):
    """A batch of frames of so many points, some in the same pillars, x first in no order."""
    parts, generator = [], torch.Generator().manual_seed(3)
    for batch_idx, points in enumerate(frames):
        low, high = (torch.tensor(FACTS.point_cloud_range[k : k + 3]) for k in (0, 3))
        xyz = low + (high - low - 0.02) * torch.rand(points, 3, generator=generator)
        xyz[points // 2 :, :2] = xyz[: points - points // 2, :2] + 0.01
        parts.append(
            torch.cat((torch.full((points, 1), batch_idx), xyz, torch.rand(points, 1, generator=generator)), 1)
        )
    return {"points": torch.cat(parts).to(dtype), "batch_size": len(frames)}


def _hard(batch, max_points=64):
    """The same batch with the voxels of a loader."""
    parts = {"voxels": [], "voxel_coords": [], "voxel_num_points": []}
    for batch_idx in range(batch["batch_size"]):
        points = batch["points"][batch["points"][:, 0] == batch_idx, 1:].contiguous()
        voxels, coords, count = voxelize(points, *PLACE.values(), max_points, 100000)
        coords = nn.functional.pad(coords, (1, 0), value=batch_idx)
        for key, value in zip(parts, (voxels, coords, count), strict=True):
            parts[key].append(value)
    return {**batch, **{key: torch.cat(values) for key, values in parts.items()}}


def _build(num_filters=(16,), **options):
    torch.manual_seed(0)
    vfe = DynamicPillarVFE(num_filters=list(num_filters), num_point_features=4, **PLACE, **options)
    for module in vfe.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0.2, 0.5)
    return vfe


def _by_cell(batch, name):
    """Cells [batch_idx, z, y, x] in ascending order, and their rows."""
    coords = batch["voxel_coords"].long()
    rows = sorted(range(len(coords)), key=coords.tolist().__getitem__)
    return coords[rows], batch[name][rows]


def _check_same_cells(found, expected, name):
    (own_cells, own), (cells, rows) = _by_cell(found, name), _by_cell(expected, name)
    assert torch.equal(own_cells, cells)
    torch.testing.assert_close(own, rows, rtol=1e-7, atol=1e-9)


def test_voxel_means_equal_those_of_voxels_with_slots():
    batch = _cloud(dtype=torch.float64)
    found = DynamicMeanVFE(num_point_features=4, **PLACE)(dict(batch))
    _check_same_cells(found, MeanVFE(num_point_features=4)(_hard(batch)), "voxel_features")
    coords = found["voxel_coords"].tolist()
    assert coords == sorted(coords) and found["voxel_num_points"].sum() == len(batch["points"])


@pytest.mark.parametrize("options", [{}, {"use_abslote_xyz": False}, {"with_distance": True}])
def test_a_pillar_of_full_slots_is_encoded_as_there(options):
    """Slots that are all filled have no rows of zeros, which alone tell the two encoders apart."""
    batch = _cloud((200,), torch.float64)
    low = torch.tensor(FACTS.point_cloud_range[:3], dtype=torch.float64)
    cell = ((batch["points"][:, 1:3] - low[:2]) / 0.16).floor()
    _, pillar, counts = cell.unique(dim=0, return_inverse=True, return_counts=True)
    batch["points"] = batch["points"][counts[pillar] == 2]
    hard = _hard(batch, max_points=2)
    dynamic, slots = _build(**options), PillarVFE(num_filters=[16], num_point_features=4, **PLACE, **options)
    dynamic.double().train()
    slots.double().train().load_state_dict(dynamic.state_dict())
    own, other = dynamic(dict(batch)), slots(hard)
    assert len(own["pillar_features"]) > 20
    _check_same_cells(own, other, "pillar_features")
    torch.testing.assert_close(dynamic.pfn_layers[0].norm.running_var, slots.pfn_layers[0].norm.running_var)


def test_the_order_of_points_does_not_matter():
    vfe, batch = _build((16, 8)).eval(), _cloud()
    expected = vfe(dict(batch))
    found = vfe({**batch, "points": batch["points"].flip(0)})
    assert torch.equal(found["voxel_coords"], expected["voxel_coords"])
    torch.testing.assert_close(found["pillar_features"], expected["pillar_features"], rtol=1e-5, atol=1e-5)


def test_points_above_and_below_the_range_count_in_pillars_and_not_in_voxels():
    points = torch.tensor([[0, 1, 1, -0.5, 0.1], [0, 1, 1, 50, 0.2], [0, 1, 1, -50, 0.3], [0, -1, 1, 0, 0.4]])
    batch = {"points": points, "batch_size": 1}
    assert _build().eval()(dict(batch))["voxel_num_points"].tolist() == [3]
    assert DynamicMeanVFE(num_point_features=4, **PLACE)(dict(batch))["voxel_num_points"].tolist() == [1]


@pytest.mark.parametrize("frames", [(40, 0), (0, 40), (40, 0, 30, 0)])
def test_a_frame_without_points_leaves_the_others_as_they_are(frames):
    vfe, batch = _build((8, 8)).eval(), _cloud(frames)
    alone = batch["points"].clone()
    alone[:, 0] = alone[:, 0].unique(return_inverse=True)[1]
    expected = vfe({"points": alone, "batch_size": sum(n > 0 for n in frames)})["pillar_features"]
    found = vfe(dict(batch))
    assert torch.equal(found["pillar_features"], expected)
    assert found["voxel_coords"][:, 0].unique().tolist() == [i for i, n in enumerate(frames) if n]


@pytest.mark.parametrize("num_filters", [(16,), (16, 32)])
@pytest.mark.parametrize("points", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_no_point_and_one_point(points, training, num_filters):
    vfe = _build(num_filters).train(training)
    out = vfe(_cloud((points,)))["pillar_features"]
    assert out.shape == (points, num_filters[-1]) and out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vfe.parameters())
    assert all(b.isfinite().all() for b in vfe.buffers())


def test_a_synchronised_norm_is_asked_for_no_points_too(monkeypatch):
    """The other processes exchange statistics, and would wait for this one."""
    asked = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda _, x: asked.append(tuple(x.shape)) or x)
    vfe = _build()
    vfe.pfn_layers[0].norm = nn.SyncBatchNorm(16)
    vfe.train()(_cloud((0,)))
    assert asked == [(1, 16, 0)]


def test_autocast_leaves_the_encoder_in_full_precision():
    vfe, batch = _build((16, 8)).eval(), _cloud()
    expected = vfe(dict(batch))["pillar_features"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = vfe(dict(batch))["pillar_features"]
    assert torch.equal(out, expected) and out.dtype == torch.float32


def test_statistics_of_many_points_are_exact():
    """With a row for each point PyTorch's float32 statistics drift: 2.5e-5 here, a percent for 400,000 points."""
    layer, points = DynamicPFNLayer(4, 8, last_layer=True), torch.randn(100_000, 4) * 5 + 20
    layer.norm.momentum = 1.0  # the running statistics are those of the batch
    layer(points, RowGroups(None, torch.tensor([0, len(points)])))
    expected = (points.double() @ layer.linear.weight.detach().double().t()).var(0)
    torch.testing.assert_close(layer.norm.running_var.double(), expected, rtol=2e-6, atol=0)


# ------------------------------------------------------------------------------------------------ what the classes say


def _cfg(**vfe):
    return tiny_model_cfg(VFE={"NAME": "DynPillarVFE", "NUM_FILTERS": [8, 8], **vfe})


@pytest.mark.parametrize("name", ["DynPillarVFE", "DynamicPillarVFE"])
def test_a_detector_trains_with_either_name(name):
    model = build_network(_cfg(NAME=name), 3, FACTS)
    boxes = torch.tensor([[[5.0, 0, -1, 3.9, 1.6, 1.56, 0.3, 1]], [[0.0] * 8]])
    loss = model.train()({**_cloud((300, 0)), "gt_boxes": boxes})[0]["loss"]
    loss.backward()
    assert model.vfe.pfn_layers[0].linear.weight.grad.abs().sum() > 0
    assert model.described.entries["pillar_features"].grid == (1, 96, 128)


def test_mean_voxels_are_described_under_both_names():
    facts = DataFacts.of(FACTS)
    for name in ("DynMeanVFE", "DynamicMeanVFE"):
        spec = describe({"VFE": {"NAME": name}}, facts).entries["voxel_features"]
        assert (spec.kind, spec.channels, spec.grid) == ("voxel", 4, (1, 96, 128))


@pytest.mark.parametrize("name", ["DynPillarVFE", "DynMeanVFE"])
def test_without_a_grid_it_says_which_step_makes_one(name):
    node = {"NAME": name, **({"NUM_FILTERS": [8]} if name == "DynPillarVFE" else {})}
    (problem,) = describe({"VFE": node}, DataFacts(point_cloud_range=SMALL_RANGE)).problems
    assert "add transform_points_to_voxels_placeholder with its VOXEL_SIZE" in problem


def test_a_narrower_student_keeps_even_hidden_channels():
    assert scale_model_cfg({"VFE": {"NAME": "DynPillarVFE", "NUM_FILTERS": [64, 64]}}, 1 / 2.8)["VFE"][
        "NUM_FILTERS"
    ] == [22, 22]


def test_no_voxels_of_the_loader_are_needed():
    facts = DataFacts(**{**vars(DataFacts.of(FACTS)), "makes_voxels": False})
    assert not describe(_cfg(), facts).problems
