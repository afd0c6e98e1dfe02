"""Voxel feature encoders: the fast path against the plain one, empty and single pillars, precision."""

import pytest
import torch
from models.pointpillars import SMALL_RANGE, dataset_facts, random_batch
from torch import nn

from pcdet.models.backbones_3d.vfe import MeanVFE, PillarVFE
from pcdet.models.backbones_3d.vfe.pillar_vfe import PFNLayer


def _build(num_filters=(16,), **options):
    facts = dataset_facts(SMALL_RANGE)
    torch.manual_seed(0)
    vfe = PillarVFE(
        num_filters=list(num_filters),
        num_point_features=4,
        voxel_size=facts.voxel_size,
        point_cloud_range=facts.point_cloud_range,
        **options,
    )
    for module in vfe.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0.2, 0.5)
    return vfe


def _batch(num=600):
    return random_batch(dataset_facts(SMALL_RANGE), points=num)


class OtherNorm(nn.BatchNorm1d):
    """Computes what its base does; the fast path is for the base alone."""


def _plain(vfe, batch):
    """OpenPCDet's form: every slot goes through linear layer, batch normalisation, ReLU and maximum."""
    vfe.pfn_layers[0].norm.__class__ = OtherNorm
    assert not vfe.pfn_layers[0].takes_points
    return vfe(dict(batch))["pillar_features"]


@pytest.mark.parametrize("training", [True, False])
def test_the_fast_path_equals_the_plain_one(training):
    batch = {k: v.double() if torch.is_tensor(v) else v for k, v in _batch().items()}
    batch["voxel_num_points"][:5] = 32  # full pillars have no empty slot
    batch["voxels"][:5] = torch.rand(5, 32, 4, dtype=torch.float64)
    fast, plain = _build().double().train(training), _build().double().train(training)
    assert fast.pfn_layers[0].takes_points
    out = fast(dict(batch))["pillar_features"]
    expected = _plain(plain, batch)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for own, other in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-7, atol=1e-9)
    for own, other in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_equal_points_share_the_gradient_of_their_maximum():
    batch = _batch(50)
    batch["voxels"][:, 1] = batch["voxels"][:, 0]
    batch["voxel_num_points"][:] = 2
    batch["voxels"][:, 2:] = 0
    batch = {k: v.double() if torch.is_tensor(v) else v for k, v in batch.items()}
    fast, plain = _build().double().eval(), _build().double().eval()
    fast(dict(batch))["pillar_features"].sum().backward()
    _plain(plain, batch).sum().backward()
    for own, other in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_the_order_of_points_in_a_pillar_does_not_matter():
    vfe, batch = _build().eval(), _batch(3000)
    expected = vfe(dict(batch))["pillar_features"]
    for i, n in enumerate(batch["voxel_num_points"].int().tolist()):
        batch["voxels"][i, :n] = batch["voxels"][i, :n].flip(0)
    torch.testing.assert_close(vfe(dict(batch))["pillar_features"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_filters", [(16,), (16, 32)])
@pytest.mark.parametrize("num", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_no_pillar_and_one_pillar(num, training, num_filters):
    batch = _batch(40)
    for key in ("voxels", "voxel_coords", "voxel_num_points"):
        batch[key] = batch[key][:num]
    vfe = _build(num_filters).train(training)
    out = vfe(batch)["pillar_features"]
    assert out.shape == (num, num_filters[-1]) and out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vfe.parameters())
    assert all(b.isfinite().all() for b in vfe.buffers())


@pytest.mark.parametrize(
    ("options", "channels"),
    [({}, 10), ({"use_abslote_xyz": False}, 7), ({"with_distance": True}, 11), ({"use_norm": False}, 10)],
)
def test_decorations(options, channels):
    vfe = _build((16, 32), **options)
    assert vfe.pfn_layers[0].linear.in_features == channels
    assert vfe.get_output_feature_dim() == 32
    keys = set(vfe.state_dict())
    assert ("pfn_layers.0.linear.bias" in keys) == (options.get("use_norm") is False)
    assert vfe(_batch())["pillar_features"].shape[1] == 32
    assert _build((16,), **options)(_batch())["pillar_features"].isfinite().all()


def test_a_synchronised_norm_takes_the_plain_path():
    vfe = _build()
    vfe.pfn_layers[0].norm = nn.SyncBatchNorm(16)
    assert not vfe.pfn_layers[0].takes_points
    vfe.eval()
    assert vfe(_batch())["pillar_features"].shape[1] == 16


def test_a_synchronised_norm_is_asked_for_no_pillars_too(monkeypatch):
    """The other processes exchange statistics, and would wait for this one."""
    asked = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda _, x: asked.append(tuple(x.shape)) or x)
    vfe, batch = _build(), _batch(40)
    vfe.pfn_layers[0].norm = nn.SyncBatchNorm(16)
    vfe.train()({k: v[:0] if str(k).startswith("voxel") else v for k, v in batch.items()})
    assert asked == [(0, 16, 32)]


def test_a_norm_with_cumulative_statistics():
    own, other = PFNLayer(4, 8, last_layer=True), nn.BatchNorm1d(8, eps=1e-3, momentum=None)
    own.norm.momentum = None
    points = torch.randn(2, 3, 3, 4)
    for p in points:
        own.forward_points(p.flatten(0, 1), torch.repeat_interleave(torch.arange(3), 3), torch.tensor([3, 3, 3]), 3)
        other(own.linear(p.flatten(0, 1)))
    torch.testing.assert_close(own.norm.running_mean, other.running_mean)
    torch.testing.assert_close(own.norm.running_var, other.running_var)


def test_autocast_leaves_the_encoder_in_full_precision():
    vfe, batch = _build().eval(), _batch()
    expected = vfe(dict(batch))["pillar_features"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = vfe(dict(batch))["pillar_features"]
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)


def test_no_layers_is_an_error():
    with pytest.raises(ValueError, match="NUM_FILTERS must name the channels of at least one layer"):
        _build(())


def test_mean_vfe_is_the_mean_of_the_points():
    batch = _batch(3000)
    batch["voxel_num_points"][0], batch["voxels"][0] = 0, 0
    out = MeanVFE(num_point_features=4)(batch)["voxel_features"]
    counts = batch["voxel_num_points"].int().tolist()
    assert not out[0].any()
    for i, n in list(enumerate(counts))[1:50]:
        torch.testing.assert_close(out[i], batch["voxels"][i, :n].mean(0))
