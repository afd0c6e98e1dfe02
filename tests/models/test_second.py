"""SECOND's parts: widths, checkpoints' layouts, the BEV map, taps, and what a frame without voxels does."""

import logging

import pytest
import torch
from models import seconds

from pcdet.models import build_network
from pcdet.models.kd.features.tap_specs import channels_of_tap
from pcdet.models.kd.features.taps import Taps
from pcdet.registry import ConfigError

pytest.importorskip("spconv", reason="spconv is not installed")

from pcdet.models.backbones_2d.map_to_bev import HeightCompression
from pcdet.models.backbones_3d import VoxelBackBone8x, VoxelResBackBone8x
from pcdet.models.backbones_3d.spconv_backbone import RowNorm, SparseBasicBlock
from pcdet.utils.spconv_utils import load_spconv

GRID = [1408, 1600, 40]


def _model(name="second", seed=0, **changes):
    torch.manual_seed(seed)
    cfg = seconds.model_cfg(name)
    for part, keys in changes.items():
        cfg[part].update(keys)
    return build_network(cfg, 3, seconds.facts())


def _filters(backbone):
    stages = [backbone.conv_input, *(backbone.get_submodule(f"conv{i}") for i in range(1, 5)), backbone.conv_out]
    return [next(m.out_channels for m in stage.modules() if hasattr(m, "out_channels")) for stage in stages]


@pytest.mark.parametrize(
    ("keys", "filters"),
    [
        ({"num_filters": [4, 8, 12, 20], "out_channels": 24}, [4, 4, 8, 12, 20, 24]),
        ({"num_filters": [4, 8, 12, 20], "width": 0.5}, [4, 4, 8, 12, 20, 64]),
        ({"out_channels": 24, "width": 0.5}, [8, 8, 16, 32, 32, 24]),
    ],
)
def test_channels_that_are_named_are_taken(keys, filters):
    backbone = VoxelBackBone8x(**keys, input_channels=4, grid_size=GRID)
    assert _filters(backbone) == filters
    assert backbone.backbone_channels == dict(
        zip(("x_conv1", "x_conv2", "x_conv3", "x_conv4"), filters[1:5], strict=True)
    )


def test_wrong_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match="NUM_FILTERS must be 4 positive numbers"):
        VoxelBackBone8x(num_filters=[16, 32, 64], input_channels=4, grid_size=GRID)
    with pytest.raises(ConfigError, match="MODEL.MAP_TO_BEV: NUM_BEV_FEATURES must be the 32 channels"):
        _model(MAP_TO_BEV={"NUM_BEV_FEATURES": 250})  # 62 at width 0.25
    model = _model(MAP_TO_BEV={"NUM_BEV_FEATURES": 128}).eval()
    with pytest.raises(ValueError, match="NUM_BEV_FEATURES must be 64, the 32 channels .* times the 2 cells .* got 32"):
        model(seconds.batch())


@pytest.mark.parametrize("backbone", [VoxelBackBone8x, VoxelResBackBone8x])
def test_what_a_backbone_writes(backbone):
    out = backbone(width=0.25, input_channels=4, grid_size=[128, 128, 40])(
        {"voxel_features": torch.randn(6, 4), "voxel_coords": torch.tensor([[i % 2, 5, 9 * i, 40] for i in range(6)])}
        | {"batch_size": 2}
    )
    shapes = {key: list(x.spatial_shape) for key, x in out["multi_scale_3d_features"].items()}
    expected = [[41, 128, 128], [21, 64, 64], [11, 32, 32], [5, 16, 16]]
    assert shapes == dict(zip(("x_conv1", "x_conv2", "x_conv3", "x_conv4"), expected, strict=True))
    assert out["multi_scale_3d_strides"] == {"x_conv1": 1, "x_conv2": 2, "x_conv3": 4, "x_conv4": 8}
    assert list(out["encoded_spconv_tensor"].spatial_shape) == [2, 16, 16] and out["encoded_spconv_tensor_stride"] == 8
    assert out["encoded_spconv_tensor"].features.shape[1] == 32


def test_a_residual_block_is_that_of_dense_convolutions():
    torch.manual_seed(0)
    block = SparseBasicBlock(6, bias=True, indice_key="a").eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    places = torch.unique(torch.randint(0, 7, (200, 3)), dim=0).int()
    places = torch.nn.functional.pad(places, (1, 0))
    features = torch.randn(len(places), 6)
    own = block(load_spconv().SparseConvTensor(features, places, [7, 7, 7], 1)).features

    _, z, y, x = places.long().unbind(1)

    def dense_layer(rows, conv, norm):
        volume = torch.zeros(1, 6, 7, 7, 7)
        volume[0, :, z, y, x] = rows.T
        out = torch.nn.functional.conv3d(volume, conv.weight.permute(0, 4, 1, 2, 3), conv.bias, padding=1)
        return (out[0, :, z, y, x].T - norm.running_mean) / (norm.running_var + 1e-3).sqrt() * norm.weight + norm.bias

    middle = dense_layer(features, block.conv1, block.bn1).relu()
    expected = (dense_layer(middle, block.conv2, block.bn2) + features).relu()
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_the_map_is_the_dense_volume_with_height_in_the_channels():
    places = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2], [1, 1, 3, 0], [1, 0, 0, 0]], dtype=torch.int32)
    features = torch.randn(4, 3, requires_grad=True)
    volume = load_spconv().SparseConvTensor(features, places, [2, 4, 5], 3)
    batch_dict = {"encoded_spconv_tensor": volume, "encoded_spconv_tensor_stride": 8}
    out = HeightCompression(num_bev_features=6, input_channels=3)(batch_dict)
    expected = torch.zeros(3, 3, 2, 4, 5)  # the third frame has no voxel
    for (frame, z, y, x), row in zip(places.tolist(), features.detach(), strict=True):
        expected[frame, :, z, y, x] = row
    assert torch.equal(out["spatial_features"], expected.view(3, 6, 4, 5))
    assert out["spatial_features_stride"] == 8
    upstream = torch.randn(3, 6, 4, 5)
    out["spatial_features"].backward(upstream)
    for (frame, z, y, x), row in zip(places.tolist(), features.grad, strict=True):
        assert torch.equal(row, upstream.view(3, 3, 2, 4, 5)[frame, :, z, y, x])


LAYOUTS = {"spconv 1.x (k, k, k, in, out)": (1, 2, 3, 4, 0), "spconv 2.0 native (k, k, k, out, in)": (1, 2, 3, 0, 4)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_of_older_spconv_load_and_say_so(tmp_path, caplog, layout):
    source, model = _model(seed=1), _model(seed=2)
    state = {k: v.permute(LAYOUTS[layout]) if v.dim() == 5 else v for k, v in source.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "old.pth")
    with caplog.at_level(logging.INFO):
        report = model.load_params_from_file(tmp_path / "old.pth")
    assert report.layout == layout and layout in caplog.text
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in source.state_dict().items())


def test_bf16_training_keeps_the_sparse_part_in_float32():
    model, batch = _model().train(), seconds.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ret_dict, _, _ = model(batch)
    ret_dict["loss"].backward()
    assert batch["encoded_spconv_tensor"].features.dtype == torch.float32
    assert batch["spatial_features_2d"].dtype == torch.bfloat16
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_frames_without_voxels_are_evaluated():
    model = _model().eval()
    with torch.no_grad():
        full = seconds.batch(frames=1)
        pred_dicts, _ = model({**full, "batch_size": 2, "gt_boxes": full["gt_boxes"].expand(2, -1, -1)})
        nothing = {key: full[key][:0] for key in ("voxels", "voxel_coords", "voxel_num_points")}
        none_dicts, _ = model({**nothing, "batch_size": 2})
    assert len(pred_dicts) == len(none_dicts) == 2


@pytest.mark.parametrize("voxels", [0, 1, 2])
@pytest.mark.parametrize("backbone", ["VoxelBackBone8x", "VoxelResBackBone8x"])
def test_a_batch_of_hardly_any_voxels_is_trained_on(voxels, backbone):
    model, full = _model(BACKBONE_3D={"NAME": backbone}).train(), seconds.batch()
    few = {key: full[key][:voxels] for key in ("voxels", "voxel_coords", "voxel_num_points")}
    loss, _, _ = model({**full, **few})
    loss["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_a_row_alone_is_normalised_by_the_running_statistics():
    norm = RowNorm(3, eps=1e-3, momentum=0.5).train()
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0])), norm.running_var.fill_(4.0 - 1e-3)
        norm.weight.fill_(6.0), norm.bias.fill_(1.0)
    row = torch.tensor([[3.0, 2.0, 0.0]], requires_grad=True)
    out = norm(row)
    torch.testing.assert_close(out, torch.tensor([[7.0, 1.0, -8.0]]))  # 6 (x - mean) / 2 + 1
    out.sum().backward()
    assert row.grad.tolist() == [pytest.approx([3.0] * 3)]
    assert norm.running_mean.tolist() == [1, 2, 3] and norm.num_batches_tracked == 0
    rows, plain = torch.randn(5, 3), torch.nn.BatchNorm1d(3, eps=1e-3, momentum=0.5).train()
    plain.load_state_dict(norm.state_dict())
    assert torch.equal(norm(rows), plain(rows)) and torch.equal(norm.running_var, plain.running_var)


def test_stages_are_tapped_by_path():
    model = _model().eval()
    names = ["backbone_3d.conv2", "backbone_3d.conv4", "encoded_spconv_tensor"]
    with torch.no_grad(), Taps(model, names) as taps:
        model.forward_features(seconds.batch())
    assert [taps.values[name].features.shape[1] for name in names] == [8, 16, 32]
    assert [channels_of_tap(model, name) for name in names] == [8, 16, 32]
