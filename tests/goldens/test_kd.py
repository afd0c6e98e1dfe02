"""The preset ``official`` against losses and gradients computed by the released PointDistiller code itself."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.models.description import describe
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.schema import resolve
from pcdet.models.kd.step import Step
from pcdet.registry import KD_LOSSES, build_from_cfg

PILLAR = [
    "16x",
    "all_voxels_k_all",
    "bottom_reweight",
    "distinct_counts_reweight",
    "mixed_reweight",
    "top_noreweight_idendity",
    "top_noreweight_sub",
    "top_reweight_idendity",
    "top_reweight_sub",
]
BEV = [
    "backbone_layer0_norw",
    "backbone_layer0_rw",
    "backbone_layer0_rw_sub",
    "backbone_layer1_norw",
    "backbone_layer1_rw",
    "fp_norw",
    "fp_rw",
]
POINT = ["avg_norw", "avg_rw", "max_norw", "max_rw", "max_rw_sub_bottom", "none_norw", "none_rw"]
CASES = [f"pillar_{c}" for c in PILLAR] + BEV + [f"point_{c}" for c in POINT]
# The shipped file whose official preset a case goes through, and which of its losses.
CFGS = Path(__file__).resolve().parents[2] / "tools" / "cfgs" / "kitti_models" / "kd"
FILES = {
    "pillar": ("pointpillar_4x_official", 0),
    "backbone_layer0": ("second_4x_official", 0),
    "backbone_layer1": ("second_4x_official", 1),
    "fp": ("second_16x_official", 0),
    "point": ("pointrcnn_8x_official", 0),
}
GEOMETRY = Geometry(point_cloud_range=(0.0, -40.0, -3.0, 70.4, 40.0, 1.0), grid_size=(64, 64, 1))


class Case:
    """One file: the official function's arguments, inputs and results."""

    def __init__(self, path):
        if not path.is_file():
            pytest.fail(f"{path} is missing")
        self.data = np.load(path, allow_pickle=False)
        self.meta = json.loads(str(self.data["meta"]))
        self.layer = self.meta["kwargs"].get("layer_idx")
        name, index = next(shipped for start, shipped in FILES.items() if path.stem.startswith(start))
        cfg = cfg_from_yaml_file(CFGS / f"{name}.yaml", EasyDict())
        self.detector = SimpleNamespace(described=describe(cfg.MODEL))
        self.shipped = resolve(cfg.KD, lambda tap: self.detector.described.find(tap).kind)[0].losses[index]
        self.tap = self.shipped["FEATURE"]

    def tensor(self, name):
        return torch.from_numpy(np.atleast_1d(self.data[name]).copy())

    def feature(self, side):
        return self.tensor(f"{side}_feature{'' if self.layer is None else self.layer}")

    def adapter(self, prefix, side):
        """The adapter's entries below ``prefix`` ("param", "grad", "f64.grad", "after"), by their last names."""
        start = f"{prefix}.{side}_gcn_adapt." + ("" if self.layer is None else f"{self.layer}.")
        return {name[len(start) :]: self.tensor(name) for name in self.data.files if name.startswith(start)}

    def node(self):
        """The shipped loss, with what this case changes."""
        kwargs, loss = self.meta["kwargs"], copy.deepcopy(self.shipped)
        loss["SAMPLE"] |= {"NUM": kwargs.get("num_voxels", kwargs.get("num_points")), "MODE": kwargs["sample_mode"]}
        edge = {"idendity": "concat", "sub": "diff"}[kwargs["fuse_mode"]]
        loss["GRAPH"] |= {"K": kwargs["kneighbours"], "EDGE": edge}
        loss["ADAPTER"]["DIM"] = self.meta["adapt_out"]
        if "pool_mode" in kwargs:
            loss["GRAPH"]["POOL"] = kwargs["pool_mode"].replace("avg", "mean")
        if not kwargs["reweight"]:
            loss |= {"REWEIGHT": None, "DISTANCE": "dist", "WEIGHT": 5e-4}
        return loss

    def outputs(self, feature):
        """A batch that holds the feature as a detector would leave it."""
        if self.tap == "point_features":
            frames, _, points = feature.shape
            coords = torch.zeros(frames * points, 4)
            coords[:, 0] = torch.arange(frames).repeat_interleave(points)
            batch = {"batch_size": frames, "point_coords": coords}
            feature = feature.transpose(1, 2).flatten(0, 1)
        elif self.tap == "pillar_features":
            cells = torch.arange(len(feature))
            zero = torch.zeros_like(cells)
            batch = {
                "batch_size": 1,
                "voxel_coords": torch.stack([zero, zero, cells // 64, cells % 64], dim=1).float(),
                "voxel_num_points": self.tensor("num_voxel_points").to(feature.dtype),
            }
        else:
            batch = {"batch_size": len(feature)}
        return ModelOutputs(self.detector, batch, {self.tap: feature}, GEOMETRY)


def run(case, dtype):
    """(weighted loss, student's gradient, loss module) of our loss on a case's inputs."""
    channels = tuple(case.feature(side).shape[1] for side in ("student", "teacher"))
    pair = SimpleNamespace(channels=lambda *_: channels, check_rows=lambda *_: None)
    loss = build_from_cfg(case.node(), KD_LOSSES, pair=pair).to(dtype)
    for side, module in (("teacher", loss.teacher_adapter), ("student", loss.student_adapter)):
        given = case.adapter("param", side)
        module.conv.weight.data.copy_(given["conv.weight"].flatten(1))
        module.bn.weight.data.copy_(given["bn.weight"])
        module.bn.bias.data.copy_(given["bn.bias"])
    loss.train()
    student = case.feature("student").to(dtype).requires_grad_()
    outputs = case.outputs(student), case.outputs(case.feature("teacher").to(dtype))
    value, _ = loss(Step(*outputs, outputs[0].batch))
    value = loss.weight * value
    value.backward()
    return value, student.grad, loss


def assert_close_to_largest(actual, expected, tolerance):
    """Within ``tolerance`` of the largest entry expected."""
    assert (actual.double() - expected.double()).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_official_preset_reproduces_the_released_loss(goldens, name):
    case = Case(goldens / "reference" / "kd" / f"{name}.npz")
    value, _, _ = run(case, torch.float32)
    torch.testing.assert_close(value, case.tensor("loss")[0], rtol=1e-5, atol=0)
    value, _, _ = run(case, torch.float64)
    torch.testing.assert_close(value, case.tensor("loss64")[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_official_preset_reproduces_the_released_gradients(goldens, name):
    case = Case(goldens / "reference" / "kd" / f"{name}.npz")
    layer = "" if case.layer is None else case.layer
    for dtype, prefix, tolerance in ((torch.float32, "", 1e-5), (torch.float64, "f64.", 1e-6)):
        _, gradient, loss = run(case, dtype)
        assert_close_to_largest(gradient, case.tensor(f"{prefix}grad_student_feature{layer}"), tolerance)
        for side, module in (("teacher", loss.teacher_adapter), ("student", loss.student_adapter)):
            expected = case.adapter(f"{prefix}grad", side)
            assert set(expected) == {"conv.weight", "bn.weight", "bn.bias"}
            assert_close_to_largest(module.conv.weight.grad, expected["conv.weight"].flatten(1), tolerance)
            assert_close_to_largest(module.bn.weight.grad, expected["bn.weight"], tolerance)
            assert_close_to_largest(module.bn.bias.grad, expected["bn.bias"], tolerance)


@pytest.mark.parametrize("name", CASES)
def test_official_adapters_keep_the_released_running_statistics(goldens, name):
    case = Case(goldens / "reference" / "kd" / f"{name}.npz")
    _, _, loss = run(case, torch.float32)
    for side, module in (("teacher", loss.teacher_adapter), ("student", loss.student_adapter)):
        expected = case.adapter("after", side)
        torch.testing.assert_close(module.bn.running_mean, expected["bn.running_mean"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(module.bn.running_var, expected["bn.running_var"], rtol=1e-4, atol=1e-6)
