"""Names, order and shapes of state dicts against OpenPCDet's (goldens/reference/state_dicts)."""

import json

import pytest
from models.pointpillars import KITTI_RANGE, dataset_facts, model_cfg

from pcdet.models import build_network


@pytest.fixture(scope="module")
def reference(goldens):
    return json.loads((goldens / "reference" / "state_dicts" / "pointpillar.json").read_text())


@pytest.fixture(scope="module")
def model():
    return build_network(model_cfg(), 3, dataset_facts(KITTI_RANGE))


def test_pointpillar_state_dict(reference, model):
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert list(own) == list(reference["state_dict"]), "names, in order"
    assert own == reference["state_dict"], "shapes"
    for name, value in model.state_dict().items():
        assert str(value.dtype) == reference["dtypes"].get(name, "torch.float32"), name


def test_pointpillar_parameters_and_buffers(reference, model):
    assert sum(p.numel() for p in model.parameters()) == reference["num_parameters"] == 4834888
    saved = set(model.state_dict())
    assert sorted(saved - {name for name, _ in model.named_parameters()}) == sorted(reference["buffers"])
    assert [type(m).__name__ for m in model.module_list] == reference["module_list"]
