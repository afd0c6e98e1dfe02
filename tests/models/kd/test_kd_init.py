"""A student cut from its teacher computes what the teacher would, were its further channels silent."""

import pytest
import torch
from kd_detectors import VOXELS, point_rcnn, pointrcnn, second, voxel_batch
from kd_pairs import detector, distil, silence, wide_detector

from pcdet.models.kd.init.weight_slicing import concatenated_inputs, inherit_weights

TWO_LAYERS = {"NUM_FILTERS": [16, 8]}, {"NUM_FILTERS": [32, 16]}
NO_UPSAMPLING = {"LAYER_STRIDES": [2, 1, 1], "UPSAMPLE_STRIDES": [], "NUM_UPSAMPLE_FILTERS": []}
ONE_MORE = {"LAYER_STRIDES": [2, 2, 2], "UPSAMPLE_STRIDES": [1, 2, 4, 1]}


def pillars(student_changes=None, teacher_changes=None, seed=1):
    wide = {
        "VFE": {"NUM_FILTERS": [16]},
        "MAP_TO_BEV": {"NUM_BEV_FEATURES": 16},
        "BACKBONE_2D": {"NUM_FILTERS": [16, 16, 32], "NUM_UPSAMPLE_FILTERS": [16, 16, 16]},
    }
    narrow = {"BACKBONE_2D": {}}
    for changes, more in ((narrow, student_changes or {}), (wide, teacher_changes or {})):
        for part, keys in more.items():
            changes[part] = {**changes.get(part, {}), **keys}
    return detector(2, **narrow), detector(seed, **wide)


def outputs(model, batch, keys):
    with torch.no_grad():
        out = model.eval().forward_features(dict(batch))
    return [out[key] for key in keys]


PILLAR_PAIRS = {
    "plain": lambda: pillars(),
    "pillar features of two layers": lambda: pillars({"VFE": TWO_LAYERS[0]}, {"VFE": TWO_LAYERS[1]}),
    "stages read as they are": lambda: pillars({"BACKBONE_2D": NO_UPSAMPLING}, {"BACKBONE_2D": NO_UPSAMPLING}),
    "an up-sampling of the whole": lambda: pillars(
        {"BACKBONE_2D": {**ONE_MORE, "NUM_UPSAMPLE_FILTERS": [8, 8, 8, 24]}},
        {"BACKBONE_2D": {**ONE_MORE, "NUM_UPSAMPLE_FILTERS": [16, 8, 16, 40]}},
    ),
}
HEADS = ["batch_cls_preds", "batch_box_preds"]


@pytest.mark.parametrize("pair", PILLAR_PAIRS.values(), ids=PILLAR_PAIRS)
def test_a_sliced_pointpillars_is_its_teacher_with_silent_channels(pair, batch):
    check(*pair(), batch, HEADS)


def test_a_sliced_second_is_its_teacher_with_silent_channels():
    check(second(0.125, seed=1), second(0.25, seed=2), voxel_batch(VOXELS), HEADS)


def test_a_sliced_pointrcnn_is_its_teacher_with_silent_channels():
    batch = pointrcnn.random_batch(points=256)
    keys = ["point_features", "rois", "batch_cls_preds", "batch_box_preds"]
    check(point_rcnn(1 / 2.8 / 4, seed=1), point_rcnn(0.25, seed=2), batch, keys)


def check(student, teacher, batch, keys):
    copied = inherit_weights(student, teacher)
    assert copied == sum(v.is_floating_point() for v in student.state_dict().values())
    wide = outputs(teacher, batch, keys)
    silence(teacher, student)
    given, wanted = outputs(student, batch, keys), outputs(teacher, batch, keys)
    for a, b in zip(given, wanted, strict=True):
        torch.testing.assert_close(a, b[..., : a.shape[-1]], rtol=1e-4, atol=1e-4)
    assert any(not torch.allclose(a, b) for a, b in zip(wide[1:], wanted[1:], strict=True)), "nothing was silenced"


def test_every_part_of_a_pointrcnn_is_named():
    parts = concatenated_inputs(point_rcnn(1))
    assert parts["backbone_3d.SA_modules.0.mlps.1.0"] == [3, 1]
    assert parts["backbone_3d.SA_modules.3.mlps.0.0"] == [3, 256, 256]
    assert parts["backbone_3d.FP_modules.3.mlp.0"] == [512, 512, 256, 256]
    assert parts["backbone_3d.FP_modules.0.mlp.0"] == [256, 1]
    assert parts["roi_head.merge_down_layer.0"] == [128, 128]
    assert parts["roi_head.SA_modules.1.mlps.0.0"] == [3, 128]
    assert concatenated_inputs(detector())["dense_head.conv_box"] == [8, 8, 8]


def test_a_teacher_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="KD.INIT slice: .* cannot be cut from the teacher's"):
        inherit_weights(wide_detector(), detector())


def test_the_block_asks_for_it():
    student, teacher = detector(), wide_detector()
    distil({"NAME": "PivotalLogit"}, student=student, teacher=teacher, INIT={"NAME": "slice"})
    whole, cut = teacher.dense_head.conv_cls.weight, student.dense_head.conv_cls.weight
    assert torch.equal(cut[:, 8:16], whole[:, 16:24])  # the second branch's first half
