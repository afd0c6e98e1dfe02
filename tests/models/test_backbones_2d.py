"""The BEV map and the BEV backbone."""

import pytest
import torch
from torch import nn

from pcdet.models.backbones_2d import BaseBEVBackbone
from pcdet.models.backbones_2d.map_to_bev import PointPillarScatter


def _scatter(channels=3, **options):
    return PointPillarScatter(num_bev_features=channels, grid_size=[5, 4, 1], **options)


def test_each_pillar_lands_in_its_cell():
    coords = torch.tensor([[0, 0, 1, 2], [1, 0, 3, 4], [0, 0, 0, 0]]).float()
    features = torch.randn(3, 3, requires_grad=True)
    out = _scatter()({"pillar_features": features, "voxel_coords": coords, "batch_size": 2})["spatial_features"]
    expected = torch.zeros(2, 3, 4, 5)
    for (frame, _, y, x), feature in zip(coords.int().tolist(), features.detach(), strict=True):
        expected[frame, :, y, x] = feature
    assert torch.equal(out.detach(), expected)
    (out * 2).sum().backward()
    assert torch.equal(features.grad, torch.full((3, 3), 2.0))


def test_an_empty_last_frame_keeps_its_place():
    batch = {"pillar_features": torch.ones(1, 3), "voxel_coords": torch.zeros(1, 4), "batch_size": 3}
    out = _scatter()(batch)["spatial_features"]
    assert out.shape == (3, 3, 4, 5) and not out[1:].any()


def test_no_pillars_give_an_empty_map():
    batch = {"pillar_features": torch.ones(0, 3), "voxel_coords": torch.zeros(0, 4), "batch_size": 2}
    out = _scatter()(batch)["spatial_features"]
    assert out.shape == (2, 3, 4, 5) and not out.any()


def test_autocast_writes_the_map_in_its_precision():
    batch = {"pillar_features": torch.ones(1, 3), "voxel_coords": torch.zeros(1, 4), "batch_size": 1}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _scatter()(batch)["spatial_features"].dtype == torch.bfloat16


def test_scatter_errors():
    with pytest.raises(ValueError, match="grid of height 1, got 2"):
        PointPillarScatter(num_bev_features=3, grid_size=[5, 4, 2])
    with pytest.raises(ValueError, match="NUM_BEV_FEATURES must equal the channels of the pillars, got 3; set 64"):
        _scatter(input_channels=64)


SMALL = dict(
    layer_nums=[1, 2],
    layer_strides=[2, 2],
    num_filters=[4, 6],
    upsample_strides=[1, 2],
    num_upsample_filters=[5, 7],
    input_channels=3,
)


def _reference(backbone, x):
    """The same layers with the padding in a layer of its own, as OpenPCDet has it."""
    ups = []
    for block, deblock in zip(backbone.blocks, backbone.deblocks, strict=True):
        for layer in list(block)[1:]:
            if isinstance(layer, nn.Conv2d):
                padded = nn.functional.pad(x, (1, 1, 1, 1))
                x = nn.functional.conv2d(padded, layer.weight, stride=layer.stride)
            else:
                x = layer(x.clone())
        ups.append(deblock(x))
    return torch.cat(ups, dim=1)


def test_the_backbone_equals_its_layers():
    backbone = BaseBEVBackbone(**SMALL).eval()
    x = torch.randn(2, 3, 8, 12)
    out = backbone({"spatial_features": x})["spatial_features_2d"]
    assert out.shape == (2, 12, 4, 6) and backbone.num_bev_features == 12
    torch.testing.assert_close(out, _reference(backbone, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_channels_last_changes_nothing_but_rounding(training):
    plain, last = (BaseBEVBackbone(**SMALL).train(training) for _ in range(2))
    last.load_state_dict(plain.state_dict())
    last.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 12)
    out = last({"spatial_features": x})["spatial_features_2d"]
    assert out.is_contiguous(memory_format=torch.channels_last)
    expected = plain({"spatial_features": x.contiguous(memory_format=torch.channels_last)})["spatial_features_2d"]
    assert expected.is_contiguous()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_an_upsampling_below_one_is_a_strided_convolution():
    backbone = BaseBEVBackbone(**{**SMALL, "upsample_strides": [0.5, 1]})
    assert isinstance(backbone.deblocks[0][0], nn.Conv2d) and backbone.deblocks[0][0].stride == (2, 2)
    assert backbone({"spatial_features": torch.randn(1, 3, 8, 8)})["spatial_features_2d"].shape == (1, 12, 2, 2)


def test_a_plain_convolution_where_nothing_is_upsampled():
    assert isinstance(BaseBEVBackbone(**SMALL).deblocks[0][0], nn.ConvTranspose2d)
    plain = BaseBEVBackbone(**SMALL, use_conv_for_no_stride=True)
    assert isinstance(plain.deblocks[0][0], nn.Conv2d)
    assert plain({"spatial_features": torch.randn(1, 3, 8, 8)})["spatial_features_2d"].shape == (1, 12, 4, 4)


def test_one_upsampling_more_than_stages_works_on_the_whole():
    backbone = BaseBEVBackbone(**{**SMALL, "upsample_strides": [1, 2, 2], "num_upsample_filters": [5, 7, 12]})
    assert backbone({"spatial_features": torch.randn(1, 3, 8, 8)})["spatial_features_2d"].shape == (1, 12, 8, 8)


def test_without_upsampling_one_stage_passes_through():
    backbone = BaseBEVBackbone(layer_nums=[1], layer_strides=[1], num_filters=[4], input_channels=3)
    assert backbone.num_bev_features == 4
    assert backbone({"spatial_features": torch.randn(1, 3, 8, 8)})["spatial_features_2d"].shape == (1, 4, 8, 8)
    empty = BaseBEVBackbone(input_channels=3)
    assert empty.num_bev_features == 3
    assert empty({"spatial_features": torch.ones(1, 3, 2, 2)})["spatial_features_2d"].shape == (1, 3, 2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_filters": [4]}, "must be of one length, got 2, 2 and 1"),
        ({"upsample_strides": [1]}, "must have an item for each stage"),
    ],
)
def test_lists_of_different_lengths_are_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        BaseBEVBackbone(**{**SMALL, **changes})
