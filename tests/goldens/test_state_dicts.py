"""State dicts and optimizer groups of OpenPCDet's own files, against OpenPCDet's (goldens/reference/state_dicts)."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from easydict import EasyDict
from openpcdet_files import COVERED, write_files

from pcdet.config import cfg_from_yaml_file
from pcdet.engine.optim import build_optimizer
from pcdet.models import build_network


def _facts(reference):
    """What the detector reads of its data set."""
    voxel_size, grid_size = reference["voxel_size"], reference["grid_size"]
    return SimpleNamespace(
        class_names=reference["class_names"],
        point_cloud_range=np.array(reference["point_cloud_range"], dtype=np.float32),
        voxel_size=voxel_size,
        grid_size=None if grid_size is None else np.array(grid_size),
        point_feature_encoder=SimpleNamespace(num_point_features=reference["num_point_features"]),
        depth_downsample_factor=None,
    )


class Case:
    """A file of OpenPCDet, its network as built here, and what it has there."""

    def __init__(self, name, folder, goldens):
        if name.startswith("second"):
            pytest.importorskip("spconv", reason="spconv is not installed")
        self.cfg = cfg_from_yaml_file(folder / "kitti_models" / f"{name}.yaml", EasyDict())
        self.reference = json.loads((goldens / "reference/state_dicts" / f"{name}.json").read_text())
        self.model = build_network(self.cfg.MODEL, len(self.cfg.CLASS_NAMES), _facts(self.reference))


@pytest.fixture(scope="module", params=COVERED)
def case(request, goldens, tmp_path_factory):
    return Case(request.param, write_files(tmp_path_factory.mktemp("openpcdet")), goldens)


def test_names_order_shapes_and_types(case):
    state = case.model.state_dict()
    own = {name: list(value.shape) for name, value in state.items()}
    assert list(own) == list(case.reference["state_dict"]), "names, in order"
    assert own == case.reference["state_dict"], "shapes"
    for name, value in state.items():
        assert str(value.dtype) == case.reference["dtypes"].get(name, "torch.float32"), name


def test_parameters_buffers_and_modules(case):
    assert sum(p.numel() for p in case.model.parameters()) == case.reference["num_parameters"]
    saved = set(case.model.state_dict())
    assert sorted(saved - {name for name, _ in case.model.named_parameters()}) == sorted(case.reference["buffers"])
    assert [type(m).__name__ for m in case.model.module_list] == case.reference["module_list"]


def test_the_optimizers_groups_stand_in_openpcdets_order(case):
    """It numbers [parameters of all other modules][those of batch norms], each in the order of the state dict."""
    buffers = set(case.reference["buffers"])
    expected = ([], [])
    for name in case.reference["state_dict"]:
        if name not in buffers:
            expected[f"{name.rpartition('.')[0]}.running_mean" in buffers].append(name)
    names = {id(p): name for name, p in case.model.named_parameters()}
    groups = build_optimizer(case.model, case.cfg.OPTIMIZATION).param_groups
    assert [[names[id(p)] for p in group["params"]] for group in groups] == list(expected)
