"""Every shipped nuScenes model has the entries of OpenPCDet's, so that its released checkpoints load, whatever layout
their sparse convolutions have (goldens/reference/state_dicts).
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.utils.weights import SPCONV_LAYOUTS, load_weights

FOLDER = Path(__file__).resolve().parents[2] / "tools/cfgs/nuscenes_models"
V2, V1, NATIVE = SPCONV_LAYOUTS
FROM_V2 = {V2: (0, 1, 2, 3, 4), V1: (1, 2, 3, 4, 0), NATIVE: (1, 2, 3, 0, 4)}


@pytest.fixture(scope="module", params=sorted(path.stem for path in FOLDER.glob("*.yaml")))
def case(request, goldens):
    reference = json.loads((goldens / f"reference/state_dicts/{request.param}.json").read_text())
    if any(len(shape) == 5 for shape in reference["state_dict"].values()):
        pytest.importorskip("spconv", reason="spconv is not installed")
    cfg = cfg_from_yaml_file(FOLDER / f"{request.param}.yaml", EasyDict())
    facts = SimpleNamespace(
        class_names=cfg.CLASS_NAMES,
        point_cloud_range=np.array(reference["point_cloud_range"], dtype=np.float32),
        voxel_size=reference["voxel_size"],
        grid_size=np.array(reference["grid_size"]),
        point_feature_encoder=SimpleNamespace(num_point_features=reference["num_point_features"]),
        depth_downsample_factor=None,
    )
    return SimpleNamespace(cfg=cfg, reference=reference, model=build_network(cfg.MODEL, 10, facts))


def test_classes_grid_names_order_shapes_and_types(case):
    state, reference, data = case.model.state_dict(), case.reference, case.cfg.DATA_CONFIG
    assert case.cfg.CLASS_NAMES == reference["class_names"]
    assert data.DATA_PROCESSOR[-1].VOXEL_SIZE == reference["voxel_size"]
    np.testing.assert_allclose(data.POINT_CLOUD_RANGE, reference["point_cloud_range"], rtol=1e-6)
    assert [(name, list(value.shape)) for name, value in state.items()] == list(reference["state_dict"].items())
    for name, value in state.items():
        assert str(value.dtype) == reference["dtypes"].get(name, "torch.float32"), name
    assert sum(p.numel() for p in case.model.parameters()) == reference["num_parameters"]
    assert [type(m).__name__ for m in case.model.module_list] == reference["module_list"]


def test_a_checkpoint_of_its_entries_loads_in_every_layout(case):
    shapes, own = case.reference["state_dict"], case.model.state_dict()
    sparse = [name for name, shape in shapes.items() if len(shape) == 5]
    for seed, layout in enumerate(FROM_V2 if sparse else [V2]):
        generator = torch.Generator().manual_seed(seed)
        meant = {
            name: torch.rand(shape, generator=generator) if own[name].is_floating_point() else own[name].clone()
            for name, shape in shapes.items()
        }
        written = meant | {name: meant[name].permute(FROM_V2[layout]).contiguous() for name in sparse}
        report = load_weights(case.model, written)
        assert report.layout == (layout if sparse else None) and not report.problems()
        loaded = case.model.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in meant.items()), layout
