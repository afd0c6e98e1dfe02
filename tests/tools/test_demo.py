import json
from pathlib import Path

import pytest
import torch
from commands import run
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.point_folder import PointFolder
from pcdet.models import build_network
from pcdet.testing import tiny_kitti

TOOLS = Path(__file__).resolve().parents[2] / "tools"
CFG = "cfgs/simulated_models/pointpillar.yaml"


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    return tiny_kitti(tmp_path_factory.mktemp("demo") / "kitti", frames=2, images=True)


@pytest.fixture(scope="module")
def ckpt(kitti, tmp_path_factory):
    """An untrained model whose every anchor scores one half."""
    cfg = cfg_from_yaml_file(TOOLS / CFG, EasyDict())
    clouds = PointFolder(cfg.DATA_CONFIG, cfg.CLASS_NAMES, kitti / "training/velodyne")
    model = build_network(cfg.MODEL, len(cfg.CLASS_NAMES), clouds)
    torch.nn.init.zeros_(model.dense_head.conv_cls.bias)
    path = tmp_path_factory.mktemp("demo") / "model.pth"
    torch.save({"model_state": model.state_dict(), "version": "pcdet+test"}, path)
    return path


def run_demo(*args, code=0, fresh=False):
    return run(["demo.py", "--cfg_file", CFG, "--device", "cpu", *args], cwd=TOOLS, code=code, fresh=fresh)


def test_demo_writes_boxes_and_pictures_of_every_cloud(kitti, ckpt, tmp_path):
    clouds = kitti / "training/velodyne"
    few = ("--set", "MODEL.POST_PROCESSING.NMS_CONFIG.NMS_POST_MAXSIZE", 20)  # each one is drawn
    run_demo("--ckpt", ckpt, "--data_path", clouds, "--out", tmp_path, "--score_thresh", 0.4, *few, fresh=True)
    names = [f"{frame:06d}{ending}" for frame in (0, 1) for ending in (".json", "_bev.png", "_image.png")]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    found = json.loads((tmp_path / "000001.json").read_text())
    assert found["frame_id"] == "000001" and found["boxes"]
    for box in found["boxes"]:
        assert len(box["box"]) == 7 and box["score"] >= 0.4 and box["name"] in ("Car", "Pedestrian", "Cyclist")


def test_demo_names_a_missing_cloud_without_a_traceback(ckpt, tmp_path):
    text = run_demo("--ckpt", ckpt, "--data_path", tmp_path / "nowhere", "--out", tmp_path, code=1)
    assert "there is no file or folder" in text and "Traceback" not in text


def test_demo_asks_for_a_checkpoint():
    assert "--ckpt" in run_demo("--data_path", "x", code=2)


def test_demo_ends_with_a_message_where_a_flag_cannot_be_followed(ckpt, tmp_path):
    text = run_demo("--ckpt", ckpt, "--data_path", tmp_path, "--out", tmp_path, "--threads", 0, code=1)
    assert "threads must be at least 1, got 0" in text and "Traceback" not in text
