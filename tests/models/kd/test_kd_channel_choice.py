"""INIT bn_scale and l1: which channels a student keeps, and that all that reads them keeps the same ones."""

import copy

import numpy as np
import pytest
import torch
from easydict import EasyDict
from kd_detectors import VOXELS, network, point_rcnn, pointrcnn, second, second_cfg, voxel_batch
from kd_pairs import detector, distil, silence, wide_detector
from test_kd_init import HEADS, PILLAR_PAIRS, outputs
from test_kd_multihead_slices import SEPARATE, multi_head

from pcdet.models.channel_flow import ChannelFlow, given
from pcdet.models.kd.init.channel_choice import flow_of, inherit_channels
from pcdet.registry import ConfigError

POINT_HEADS = ["point_features", "rois", "batch_cls_preds", "batch_box_preds"]
by_either = pytest.mark.parametrize("by", ["l1", "bn_scale"])


def residual(width, seed):
    """SECOND on the residual backbone, whose stages add what they make to what they read."""
    pytest.importorskip("spconv")
    cfg = second_cfg(width)
    cfg.BACKBONE_3D = EasyDict(NAME="VoxelResBackBone8x")
    return network(cfg, VOXELS, seed)


PAIRS = {
    **{f"pillars, {name}": (pair, lambda batch: batch, HEADS) for name, pair in PILLAR_PAIRS.items()},
    "multi-head": (
        lambda: tuple(multi_head(seed, width, 20, SEPARATE) for seed, width in ((1, 0.5), (2, 1))),
        lambda batch: batch,
        HEADS,
    ),
    "second": (lambda: (second(0.125, seed=1), second(0.25, seed=2)), lambda _: voxel_batch(), HEADS),
    "second, residual": (lambda: (residual(0.125, 1), residual(0.25, 2)), lambda _: voxel_batch(), HEADS),
    "pointrcnn": (
        lambda: (point_rcnn(1 / 2.8 / 4, seed=1), point_rcnn(0.25, seed=2)),
        lambda _: pointrcnn.random_batch(points=256),
        POINT_HEADS,
    ),
}


@by_either
@pytest.mark.parametrize("case", PAIRS)
def test_a_student_of_chosen_channels_is_its_teacher_whose_others_are_silent(case, by, batch):
    """The silent ones are the first of every layer, which slices would take."""
    pair, batch_of, keys = PAIRS[case]
    (student, teacher), batch = pair(), batch_of(batch)
    wide = outputs(copy.deepcopy(teacher), batch, keys)
    silence(teacher, student, first=True)
    copied = inherit_channels(student, teacher, by)
    assert copied == sum(value.is_floating_point() for value in student.state_dict().values())
    given_out, wanted = outputs(student, batch, keys), outputs(teacher, batch, keys)
    for key, a, b in zip(keys, given_out, wanted, strict=True):
        kept = b[..., -a.shape[-1] :]  # of features the channels that are not silent
        torch.testing.assert_close(a, kept, rtol=1e-4, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    assert any(not torch.allclose(a, b) for a, b in zip(wide[1:], wanted[1:], strict=True)), "nothing was silenced"


@by_either
@pytest.mark.parametrize(
    "pair",
    [
        lambda: (detector(1), detector(2)),
        lambda: (second(0.125, seed=1), second(0.125, seed=2)),
        lambda: (residual(0.125, 1), residual(0.125, 2)),
        lambda: (point_rcnn(0.25, seed=1), point_rcnn(0.25, seed=2)),
    ],
    ids=["pillars", "second", "residual", "pointrcnn"],
)
def test_a_student_as_wide_as_its_teacher_gets_exactly_its_weights(pair, by):
    student, teacher = pair()
    inherit_channels(student, teacher, by)
    for (name, own), source in zip(student.state_dict().items(), teacher.state_dict().values(), strict=True):
        assert torch.equal(own, source), name


def strongest(strength, wanted):
    """Ascending indices of the largest entries."""
    return sorted(sorted(range(len(strength)), key=lambda i: -strength[i])[:wanted])


@by_either
def test_the_choice_is_the_rules_layer_by_layer(by):
    """Written out for a PointPillars by the names of its tensors: stages in a chain, their ends side by side."""
    student, teacher = detector(2), wide_detector()
    generator = torch.Generator().manual_seed(0)
    for module in teacher.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.weight.data = torch.randn(module.weight.shape, generator=generator)  # scales may be negative
    inherit_channels(student, teacher, by)
    old = {name: value.numpy() for name, value in teacher.state_dict().items()}
    new = {name: value.numpy() for name, value in student.state_dict().items()}

    def keep(layer, norm, axis=0):
        filters = np.moveaxis(old[f"{layer}.weight"], axis, 0)
        by_filter = np.abs(filters).reshape(len(filters), -1).sum(axis=1)
        strength = by_filter if by == "l1" else np.abs(old[f"{norm}.weight"])
        kept = strongest(strength.tolist(), len(new[f"{norm}.weight"]))
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            assert np.array_equal(new[f"{norm}.{leaf}"], old[f"{norm}.{leaf}"][kept]), f"{norm}.{leaf}"
        return kept

    kept = keep("vfe.pfn_layers.0.linear", "vfe.pfn_layers.0.norm")
    assert np.array_equal(new["vfe.pfn_layers.0.linear.weight"], old["vfe.pfn_layers.0.linear.weight"][kept])
    joined, start = [], 0
    for stage in range(3):
        for place in (1, 4):
            name, before = f"backbone_2d.blocks.{stage}.{place}", kept
            kept = keep(name, f"backbone_2d.blocks.{stage}.{place + 1}")
            assert np.array_equal(new[f"{name}.weight"], old[f"{name}.weight"][np.ix_(kept, before)]), name
        name = f"backbone_2d.deblocks.{stage}.0"
        up = keep(name, f"backbone_2d.deblocks.{stage}.1", axis=1)
        assert np.array_equal(new[f"{name}.weight"], old[f"{name}.weight"][np.ix_(kept, up)]), name
        joined += [start + channel for channel in up]
        start += old[f"{name}.weight"].shape[1]
    for name in ("conv_cls", "conv_box", "conv_dir_cls"):
        weight = f"dense_head.{name}.weight"
        assert np.array_equal(new[weight], old[weight][:, joined]), name
        assert np.array_equal(new[f"dense_head.{name}.bias"], old[f"dense_head.{name}.bias"]), name
    assert joined != [*range(8), *range(16, 24), *range(32, 40)], "slices would be the same"


def test_channels_that_are_added_are_chosen_together():
    flow = flow_of(residual(0.25, 0))
    stage = {path: group for path, group in flow.makes.items() if path.startswith("backbone_3d.conv2")}
    assert stage["backbone_3d.conv2.0.0"] == stage["backbone_3d.conv2.1.conv2"] == stage["backbone_3d.conv2.2.conv2"]
    assert len(set(stage.values())) == 3  # and the first convolution of each block by itself


@pytest.mark.parametrize("build", [detector, lambda: second(0.25), lambda: residual(0.25, 0), lambda: point_rcnn(0.25)])
def test_every_tensor_of_a_detector_is_named(build):
    model = build()
    flow = flow_of(model)
    paths = {name.rpartition(".")[0] for name, value in model.state_dict().items() if value.is_floating_point()}
    assert paths == {*flow.makes, *flow.norms}


@by_either
def test_the_block_asks_for_it(by):
    student, teacher, expected = detector(), wide_detector(), detector()
    inherit_channels(expected, teacher, by)
    distil({"NAME": "PivotalLogit"}, student=student, teacher=teacher, INIT={"NAME": by})
    for (name, own), wanted in zip(student.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(own, wanted), name


def test_a_narrower_or_shallower_teacher_is_refused():
    with pytest.raises(ConfigError, match="KD.INIT l1: .* of the student has 16 channels and the teacher's 8; use a"):
        inherit_channels(wide_detector(), detector(), "l1")
    deeper = detector(BACKBONE_2D={"LAYER_NUMS": [1, 1, 2]})
    with pytest.raises(ConfigError, match=r"one that differs: backbone_2d.blocks.2.7\); use a teacher of the same"):
        inherit_channels(deeper, wide_detector(), "bn_scale")


def test_a_module_that_does_not_tell_its_channels_is_named():
    student = detector()
    student.backbone_2d = torch.nn.Conv2d(8, 24, 1)
    with pytest.raises(ConfigError, match=r"KD.INIT l1: PointPillar.backbone_2d .* since Conv2d does not say .*INIT s"):
        inherit_channels(student, student, "l1")


def test_a_flow_that_does_not_fit_its_layers_is_refused():
    with pytest.raises(ValueError, match="channel_flow gives conv 3 channels and lets it make 5, but it reads 4 and"):
        ChannelFlow().layer("conv", torch.nn.Conv2d(4, 5, 1), given(3))
