"""Checkpoints from OpenPCDet and back: its optimizer state goes on here, ours goes on there, and misfits are told."""

import logging

import numpy as np
import pytest
import torch
import yaml
from commands import run
from easydict import EasyDict
from models import pointrcnn, seconds

from pcdet.cli import train
from pcdet.config import cfg_from_yaml_file
from pcdet.engine.checkpoint import checkpoint_state, load_checkpoint, save_checkpoint
from pcdet.engine.optim import build_optimizer
from pcdet.models import build_network
from pcdet.utils.checkpoint_reader import CheckpointError
from pcdet.utils.spconv_utils import find_all_spconv_keys

OPTIMIZATION = {
    "BATCH_SIZE_PER_GPU": 2,
    "NUM_EPOCHS": 2,
    "OPTIMIZER": "adam_onecycle",
    "LR": 0.003,
    "WEIGHT_DECAY": 0.01,
}
TO_SPCONV_1 = (1, 2, 3, 4, 0)  # (out, z, y, x, in) -> (z, y, x, in, out)
FLAGS = ["--workers", "0", "--device", "cpu", "--seed", "3", "--logger_iter_interval", "1"]


class Detector:
    """A small detector with its optimizer, and a batch to train it on."""

    def __init__(self, name, seed):
        torch.manual_seed(seed)
        if name == "second":
            pytest.importorskip("spconv", reason="spconv is not installed")
            cfg, facts, self.batch = seconds.model_cfg(), seconds.facts(), seconds.batch
        else:
            cfg, facts, self.batch = pointrcnn.tiny_model_cfg(), pointrcnn.dataset_facts(), pointrcnn.random_batch
        self.model = build_network(cfg, 3, facts).train()
        self.optimizer = build_optimizer(self.model, OPTIMIZATION)

    def step(self):
        torch.manual_seed(7)  # proposals are drawn
        self.optimizer.zero_grad()
        self.model(self.batch())[0]["loss"].backward()
        self.optimizer.step()
        return self


def openpcdets(model, optimizer, path, *, spconv=2, **counts):
    """Writes a training state as OpenPCDet does: the old file format, numpy numbers, spconv's layout of the time."""
    sparse = find_all_spconv_keys(model) if spconv == 1 else ()
    ids = {id(p) for name, p in model.named_parameters() if name in sparse}

    def turned(tensor, is_sparse):
        return tensor.permute(TO_SPCONV_1).contiguous() if is_sparse and tensor.dim() == 5 else tensor

    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        i: {key: turned(value, id(parameters[i]) in ids) for key, value in entry.items()}
        for i, entry in state["state"].items()
    }
    groups = [
        {**group, "lr": np.float64(group["lr"]), "betas": (np.float64(0.95), 0.99), "weight_decay": 0}
        for group in state["param_groups"]
    ]
    weights = {name: turned(value, name in sparse) for name, value in model.state_dict().items()}
    content = {"epoch": 1, "it": 2, "model_state": weights, "version": "pcdet+0.3.0+0642cf0", **counts}
    content["optimizer_state"] = {"state": moments, "param_groups": groups}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


# ---------------------------------------------------------------------------------------------------- training goes on


@pytest.mark.parametrize(("name", "spconv"), [("second", 1), ("second", 2), ("pointrcnn", 2)])
def test_a_training_of_openpcdets_goes_on_to_the_same_weights(name, spconv, tmp_path):
    theirs, own = Detector(name, seed=1).step(), Detector(name, seed=2)
    path = openpcdets(theirs.model, theirs.optimizer, tmp_path / "a.pth", spconv=spconv, epoch=3, it=30)
    assert load_checkpoint(path, own.model, own.optimizer) == (3, 30)
    theirs.step(), own.step()
    for (key, value), other in zip(theirs.model.state_dict().items(), own.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize("name", ["second", "pointrcnn"])
def test_a_training_from_here_goes_on_in_openpcdets_terms(name, tmp_path):
    """There: torch.load, a strict load of the weights, and Adam over [the others][batch norms] takes the moments."""
    own, theirs = Detector(name, seed=1).step(), Detector(name, seed=2)
    state = checkpoint_state(own.model, own.optimizer, 3, 30)
    loaded = torch.load(save_checkpoint(state, tmp_path / "a"), weights_only=True)
    assert {"epoch", "it", "model_state", "optimizer_state", "version"} <= set(loaded)
    theirs.model.load_state_dict(loaded["model_state"], strict=True)
    leaves = [m for m in theirs.model.modules() if not list(m.children())]
    norms = [isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)) for m in leaves]
    groups = [
        {"params": [p for m, norm in zip(leaves, norms, strict=True) if norm is wanted for p in m.parameters()]}
        for wanted in (False, True)
    ]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    adam.load_state_dict(loaded["optimizer_state"])
    for p, moments in adam.state.items():
        assert moments["exp_avg"].shape == p.shape
    own_moments = [own.optimizer.state[p]["exp_avg"] for g in own.optimizer.param_groups for p in g["params"]]
    taken = [adam.state[p]["exp_avg"] for g in adam.param_groups for p in g["params"]]
    assert all(torch.equal(a, b) for a, b in zip(own_moments, taken, strict=True))
    theirs.model(theirs.batch())[0]["loss"].backward()
    adam.step()


def test_a_training_of_another_class_count_does_not_go_on():
    theirs, own = Detector("second", seed=1), Detector("second", seed=2)
    state = checkpoint_state(theirs.model, theirs.optimizer, 1, 2)
    state["model_state"]["dense_head.conv_cls.bias"] = torch.zeros(6)
    with pytest.raises(CheckpointError, match=r"(?s)a.pth does not fit .*conv_cls.bias: shape \[6\] in the file, \["):
        load_checkpoint(state, own.model, own.optimizer, name="a.pth")


def test_moments_of_another_shape_are_named():
    theirs, own = Detector("pointrcnn", seed=1).step(), Detector("pointrcnn", seed=2)
    state = theirs.optimizer.state_dict()
    state["state"][0]["exp_avg"] = torch.zeros(3, 5)
    content = {**checkpoint_state(theirs.model, None, 1, 2), "optimizer_state": state}
    with pytest.raises(CheckpointError, match=r"exp_avg of parameter 0 .* has shape \[3, 5\], the parameter has \["):
        load_checkpoint(content, own.model, own.optimizer, name="a.pth")


# ------------------------------------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def second_file(cfg_file, tools):
    """A thin SECOND over the frames of ``cfg_file``."""
    pytest.importorskip("spconv", reason="spconv is not installed")
    config = yaml.safe_load((tools / "cfgs/simulated_models/second.yaml").read_text())
    tiny = yaml.safe_load(cfg_file.read_text())
    for key in ("DATA_PATH", "POINT_CLOUD_RANGE"):
        config["DATA_CONFIG"][key] = tiny["DATA_CONFIG"][key]
    config["DATA_CONFIG"]["DATA_PROCESSOR"][-1]["VOXEL_SIZE"] = [
        0.16,
        0.16,
        0.1,
    ]  # a whole number of them in that range
    config["MODEL"]["BACKBONE_3D"].update(NUM_FILTERS=[4, 4, 8, 8], OUT_CHANNELS=8)
    config["MODEL"]["MAP_TO_BEV"]["NUM_BEV_FEATURES"] = 16  # 8 channels, 2 cells in height
    config["MODEL"]["BACKBONE_2D"].update(LAYER_NUMS=[1, 1], NUM_FILTERS=[8, 8], NUM_UPSAMPLE_FILTERS=[8, 8])
    config["OPTIMIZATION"].update(NUM_EPOCHS=2, BATCH_SIZE_PER_GPU=2)
    path = cfg_file.with_name("tiny_second.yaml")
    path.write_text(yaml.safe_dump(config))
    return path


def _facts(cfg, num_class=3):
    voxel_size = next(p.VOXEL_SIZE for p in cfg.DATA_CONFIG.DATA_PROCESSOR if "VOXEL_SIZE" in p)
    return seconds.dataset_facts(cfg.DATA_CONFIG.POINT_CLOUD_RANGE, voxel_size, cfg.CLASS_NAMES[:num_class])


def _network(cfg_file, num_class=3, seed=0):
    """(model, configuration) of a file, for its first classes."""
    cfg = cfg_from_yaml_file(cfg_file, EasyDict())
    facts = _facts(cfg, num_class)
    head = cfg.MODEL.DENSE_HEAD
    head.ANCHOR_GENERATOR_CONFIG = head.ANCHOR_GENERATOR_CONFIG[:num_class]
    torch.manual_seed(seed)
    return build_network(cfg.MODEL, num_class, facts), cfg


def test_train_and_test_take_openpcdets_file_as_it_is(second_file, tools, tmp_path):
    model, cfg = _network(second_file)
    optimizer = build_optimizer(model, cfg.OPTIMIZATION)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    path = openpcdets(model, optimizer, tmp_path / "second_7862.pth", spconv=1)
    out = tmp_path / "out"
    log = run(["train.py", "--cfg_file", second_file, "--output_dir", out, "--ckpt", path, *FLAGS], cwd=tools)
    assert f"loaded {path}: epoch 1, iteration 2" in log
    assert log.count("Train:") == 2 and "Car AP_R40@0.70, 0.70, 0.70:" in log
    trained = torch.load(out / "ckpt/checkpoint_epoch_2.pth", weights_only=True)
    assert {k: v.shape for k, v in trained["model_state"].items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    command = ["test.py", "--cfg_file", second_file, "--output_dir", out, "--workers", "0", "--device", "cpu"]
    log = run([*command, "--ckpt", path], cwd=tools)
    total = len(model.state_dict())
    assert "laid out as in spconv 1.x" in log and f"==> Done (loaded {total}/{total})" in log
    assert (out / "eval/epoch_7862/val/default/result.pkl").is_file()


def test_a_wrong_class_count_is_refused_and_taken_in_part_on_request(second_file, tools, tmp_path, caplog):
    model, _ = _network(second_file, num_class=1)
    path = openpcdets(model, build_optimizer(model, OPTIMIZATION), tmp_path / "car_1.pth", spconv=1)
    common = ["--cfg_file", second_file, "--output_dir", tmp_path, "--workers", "0", "--device", "cpu"]
    log = run(["test.py", *common, "--ckpt", path], cwd=tools, code=1)
    assert "dense_head.conv_cls.weight: shape [2, 16, 1, 1] in the file, [18, 16, 1, 1] in the model" in log
    assert "backbone_3d" not in log.partition("CheckpointError")[2] and "Traceback" not in log
    total = len(model.state_dict())
    said = ("Not updated weight dense_head.conv_cls.weight: (18, 16, 1, 1)", f"==> Done (loaded {total - 6}/{total})")
    log = run(["test.py", *common, "--ckpt", path, "--allow_partial"], cwd=tools)
    assert all(line in log for line in said)
    cfg = cfg_from_yaml_file(second_file, EasyDict())
    with caplog.at_level(logging.INFO):  # what train.py --pretrained_model does, asked or not
        train.build_detector(cfg, _facts(cfg), logging.getLogger("any"), pretrained=path)
    assert all(line in caplog.text for line in said)
