"""train.py, test.py and demo.py with the shipped CenterPoint for simulated scenes, at an eighth of its width."""

import json
import pickle

import pytest
import torch
import yaml
from commands import run

EVERY_PEAK = ["--set", "MODEL.DENSE_HEAD.POST_PROCESSING.SCORE_THRESH", "0.0"]
FEW = ["MODEL.DENSE_HEAD.POST_PROCESSING.NMS_CONFIG.NMS_POST_MAXSIZE", "7"]
WHERE = ["--device", "cpu"]


@pytest.fixture(scope="module")
def center_file(cfg_file, tools):
    """The shipped file, small, on the tiny frames."""
    shipped = yaml.safe_load((tools / "cfgs/simulated_models/centerpoint_pillar.yaml").read_text())
    shipped["DATA_CONFIG"] = yaml.safe_load(cfg_file.read_text())["DATA_CONFIG"]
    shipped["MODEL"]["WIDTH"] = 0.125
    shipped["OPTIMIZATION"]["NUM_EPOCHS"] = 1
    path = cfg_file.parent / "center.yaml"
    path.write_text(yaml.safe_dump(shipped))
    return path


@pytest.fixture(scope="module")
def trained(center_file, tools, tmp_path_factory):
    """The output folder of two steps and an evaluation, with its log."""
    out = tmp_path_factory.mktemp("center")
    flags = ["--workers", "0", *WHERE, "--seed", "3", "--logger_iter_interval", "1"]
    log = run(["train.py", "--cfg_file", center_file, "--output_dir", out, *flags, *EVERY_PEAK], cwd=tools)
    return out, log


def test_training_and_evaluation_leave_losses_and_results(trained):
    out, log = trained
    state = torch.load(out / "ckpt/checkpoint_epoch_1.pth", weights_only=True)["model_state"]
    assert state["dense_head.heads_list.0.hm.1.weight"].shape == (3, 4, 3, 3)
    result = out / "eval/eval_with_train/epoch_1/val"
    frames = pickle.loads((result / "result.pkl").read_bytes())
    assert len(frames) == 2 and all(len(frame["name"]) for frame in frames)
    assert "recall_rcnn_0.5" in log and "Car AP_R40@0.70" in log


def test_a_checkpoint_is_evaluated_and_shown_in_clouds(trained, center_file, tools, tmp_path):
    ckpt = trained[0] / "ckpt/checkpoint_epoch_1.pth"
    model = ["--cfg_file", center_file, "--ckpt", ckpt, *WHERE]
    run(["test.py", *model, "--output_dir", tmp_path / "test", "--workers", "0", *EVERY_PEAK, *FEW], cwd=tools)
    (result,) = (tmp_path / "test").rglob("result.pkl")
    assert [len(frame["name"]) for frame in pickle.loads(result.read_bytes())] == [7, 7]
    clouds = center_file.parent / "kitti/training/velodyne/000000.bin"
    run(
        ["demo.py", *model, "--data_path", clouds, "--out", tmp_path / "demo", "--score_thresh", 0, *EVERY_PEAK, *FEW],
        cwd=tools,
    )
    found = json.loads((tmp_path / "demo/000000.json").read_text())
    assert len(found["boxes"]) == 7 and {box["name"] for box in found["boxes"]} <= {"Car", "Pedestrian", "Cyclist"}
