"""What a distiller keeps in a checkpoint beside its student, and takes back."""

import pytest
import torch
from kd_pairs import LOGITS, PILLARS, distil
from torch import nn

from pcdet.engine.checkpoint import checkpoint_state, load_checkpoint, plain_detector
from pcdet.engine.precision import Precision
from pcdet.utils.checkpoint_reader import CheckpointError


def test_a_distillers_detector_is_its_student_and_the_rest_is_kd_state():
    distiller = distil(PILLARS)
    state = checkpoint_state(distiller)
    assert plain_detector(distiller) is distiller.student
    assert state["model_state"].keys() == distiller.student.state_dict().keys()
    own = {f"losses.{key}" for key in distiller.losses.state_dict()}
    assert set(state["kd_state"]) == own and own
    again = distil(PILLARS)
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    load_checkpoint(state, again)
    for key, value in distiller.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("kd_state", [[1, 2], {"losses.x": "text"}])
def test_a_kd_state_of_another_kind_is_an_error_and_nothing_is_taken(kd_state):
    distiller = distil(LOGITS)
    before = {key: value.clone() for key, value in distiller.state_dict().items()}
    state = checkpoint_state(distiller)
    state["model_state"] = {key: torch.zeros_like(value) for key, value in state["model_state"].items()}
    with pytest.raises(CheckpointError, match="^a.pth: kd_state must be tensors by name, got "):
        load_checkpoint({**state, "kd_state": kd_state}, distiller, name="a.pth")
    assert all(torch.equal(distiller.state_dict()[key], value) for key, value in before.items())


def test_a_layout_reaches_the_teacher_too():
    distiller = Precision(layout="channels_last").lay_out(distil(PILLARS))
    for model in (distiller.student, distiller.teacher):
        weight = next(m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1))
        assert weight.is_contiguous(memory_format=torch.channels_last)
