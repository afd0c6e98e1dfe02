"""What several processes compute is what one does: gradients, evaluation, and a training that was stopped."""

import json
import pickle

import pytest
import torch
from ddp_worker import gradients, results, work
from support.ranks import call_in_ranks


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """(gradients, results, folder) of one process."""
    out = tmp_path_factory.mktemp("alone")
    return gradients(0, 1), results(out), out


@pytest.fixture(scope="module", params=[2, 3, 4])
def several(request, tmp_path_factory):
    """(facts by rank, folder) of several processes."""
    out = tmp_path_factory.mktemp(f"ddp{request.param}")
    call_in_ranks(work, str(out), ranks=request.param)
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(request.param)], out


def test_gradients_are_those_of_one_process_at_the_same_global_batch(alone, several):
    """Double precision leaves the order of summation, some ulps (2e-16) of a mean over twelve frames: 1e-13 is ample.

    A batch divided wrongly is off by a factor of at least 4 / 3.
    """
    for facts in several[0]:
        assert facts["gradients"].keys() == alone[0].keys()
        for name, expected in alone[0].items():
            torch.testing.assert_close(
                torch.tensor(facts["gradients"][name], dtype=torch.float64),
                torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=1e-15,
            )  # fmt: skip


def test_any_number_of_frames_is_evaluated_as_by_one_process(alone, several):
    """Scores to 1e-6: float32 products of one row and of two may differ in their last bit."""
    facts, out = several
    for frames, expected in alone[1].items():
        assert facts[0]["results"][str(frames)] == pytest.approx(expected, abs=1e-6)
    assert all(not any(other["results"].values()) for other in facts[1:])
    for frames in range(8):
        mine, theirs = (
            pickle.loads((folder / f"frames{frames}/result.pkl").read_bytes()) for folder in (alone[2], out)
        )
        assert [a["frame_id"] for a in mine] == [a["frame_id"] for a in theirs] == [f"{i:06d}" for i in range(frames)]
        for one, other in zip(mine, theirs, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-6)


@pytest.mark.parametrize("several", [2], indirect=True)
def test_a_stopped_and_resumed_training_of_two_processes_ends_the_same_to_the_bit(several):
    """Weights and moments of every rank, though each draws numbers of its own and rank 0's alone are in checkpoints."""
    for facts in several[0]:
        assert facts["same"] == [True] * 6
