"""A CenterPoint that begins with channels of its teacher is that teacher with its other channels silent."""

import copy

import pytest
import torch
from kd_pairs import silence
from models.centerpoints import FACTS, center_batch, center_cfg
from support.detectors import network

from pcdet.models.kd.init.channel_choice import inherit_channels
from pcdet.models.kd.init.weight_slicing import inherit_weights


def center_point(seed, width):
    cfg = center_cfg(SHARED_CONV_CHANNEL=12)
    cfg.WIDTH = width
    return network(cfg, FACTS, seed)


def predictions(model):
    """All that the branches predict, side by side."""
    with torch.no_grad():
        model.eval().forward_features(center_batch(points=300), decode_boxes=False)
    return torch.cat(
        [torch.cat(list(out.values()), dim=1) for out in model.dense_head.forward_ret_dict["pred_dicts"]], dim=1
    )


@pytest.mark.parametrize("by", ["slice", "bn_scale"])
def test_a_student_cut_from_its_teacher_is_its_teacher_with_silent_channels(by):
    student, teacher = center_point(1, 0.5), center_point(2, 1)
    assert student.dense_head.heads_list[1].hm[0][0].weight.shape == (6, 6, 3, 3)
    wide = predictions(copy.deepcopy(teacher))
    if by == "slice":
        copied = inherit_weights(student, teacher)
        silence(teacher, student)
    else:
        silence(teacher, student, first=True)
        copied = inherit_channels(student, teacher, by)
    assert copied == sum(value.is_floating_point() for value in student.state_dict().values())
    own, wanted = predictions(student), predictions(teacher)
    torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(wide, wanted), "nothing was silenced"
