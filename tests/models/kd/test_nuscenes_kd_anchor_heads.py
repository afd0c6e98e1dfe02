"""Every loss on PointPillars and SECOND of nuScenes: it works with branches and velocities, or is refused at the start.

The heads predict branch by branch, for groups of classes, and their boxes have nine columns.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from easydict import EasyDict
from models.pointpillars import collate, dataset_facts
from support.detectors import network

from pcdet.config import cfg_from_yaml_file
from pcdet.models.kd import build_distiller
from pcdet.registry import KD_LOSSES, ConfigError

FOLDER = Path(__file__).resolve().parents[3] / "tools/cfgs/nuscenes_models"
NEAR = (-3.2, -3.2, -5.0, 3.2, 3.2, 3.0)
SIZES = {1: (4.6, 1.9, 1.7), 8: (1.7, 0.6, 1.2), 9: (0.7, 0.7, 1.7)}  # car, bicycle, pedestrian

ON_MAP = {"FEATURE": "spatial_features_2d"}
ON_CELLS = ON_MAP | {"SAMPLE": {"NUM": 40, "BY": "num_points"}}
WORKING = {
    "PointDistiller": ON_CELLS | {"GRAPH": {"K": 4}},
    **dict.fromkeys(("SimilarityPreserving", "RKD", "CRD", "FeatureBased"), ON_CELLS),
    **dict.fromkeys(("FitNet", "AttentionTransfer", "PKD", "CWD", "MGD", "FGD"), ON_MAP),
    "Overhaul": ON_CELLS | {"FEATURE": "backbone_2d.deblocks.0.1"},
}
ON_ONE_MAP_OF_PREDICTIONS = {"PivotalLogit": {}, "DKD": {}, "BoxConsistency": {}, "FGFI": ON_MAP}
MODELS = {"cbgs_pp_multihead": ((0.2, 0.2, 8.0), 20), "cbgs_second_multihead": ((0.1, 0.1, 0.2), 10)}


def batch_of(facts, max_points):
    """Two frames of points of five columns about a car, a bicycle and a pedestrian, which move."""
    rng = np.random.default_rng(0)
    clouds, boxes = [], []
    for _ in range(2):
        xyz = rng.uniform(NEAR[:3], NEAR[3:], size=(500, 3))
        clouds.append(np.c_[xyz, rng.uniform(0, 255, 500), rng.uniform(0, 0.5, 500)].astype(np.float32))
        rows = [[*rng.uniform(-2, 2, 2), -0.5, *size, 0.3, 1.0, -0.5, label] for label, size in SIZES.items()]
        boxes.append(np.array(rows, dtype=np.float32))
    return collate(clouds, boxes, facts, max_points)


class Pair:
    """A shipped model, small and shallow, its batch, and distillers of half its width."""

    def __init__(self, name):
        voxel_size, max_points = MODELS[name]
        cfg = cfg_from_yaml_file(FOLDER / f"{name}.yaml", EasyDict())
        self.cfg = cfg.MODEL
        self.cfg.BACKBONE_2D.LAYER_NUMS = [1] * len(self.cfg.BACKBONE_2D.LAYER_NUMS)
        self.facts = dataset_facts(NEAR, voxel_size, cfg.CLASS_NAMES, features=5)
        self.batch = batch_of(self.facts, max_points)

    def network(self, width, seed):
        cfg = copy.deepcopy(self.cfg)
        cfg.WIDTH = width
        return network(cfg, self.facts, seed)

    def distiller(self, losses, teacher=None, **block):
        cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": losses, **block})
        teacher = teacher or self.network(0.25, seed=2)
        return build_distiller(cfg, self.network(0.125, seed=1), self.facts, teacher=teacher).train()


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    if "second" in request.param:
        pytest.importorskip("spconv")
    return Pair(request.param)


def test_every_loss_is_known_to_work_or_to_be_refused():
    assert sorted(WORKING | ON_ONE_MAP_OF_PREDICTIONS) == sorted(KD_LOSSES.names())


def test_losses_on_features_teach_the_student(pair):
    distiller = pair.distiller([{"NAME": name} | keys for name, keys in WORKING.items()])
    ret_dict, tb_dict, _ = distiller(dict(pair.batch))
    terms = {name: tb_dict[f"kd/{name}"] for name in WORKING}
    assert all(np.isfinite(value) and value > 0 for value in terms.values()), terms
    ret_dict["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distiller.student.parameters())


def test_losses_on_one_map_of_predictions_are_refused_together_before_the_first_step(pair):
    losses = [{"NAME": name} | keys for name, keys in ON_ONE_MAP_OF_PREDICTIONS.items()]
    losses.append({"NAME": "PointDistiller"} | ON_MAP)  # its cells by the teacher's score, unless told otherwise
    with pytest.raises(ConfigError) as error:
        pair.distiller(losses)
    assert len(error.value.problems) == len(losses)
    for i, problem in enumerate(error.value.problems):
        assert problem.startswith(f"KD.LOSSES[{i}]: ") and "AnchorHeadMulti predicts branch by branch" in problem
        assert "BY channel_l2 or num_points" in problem


def test_the_teachers_boxes_join_the_labels_with_their_velocities(pair):
    teacher = pair.network(0.25, seed=2)
    for branch in teacher.dense_head.rpn_heads:
        torch.nn.init.constant_(branch.conv_cls[-1].bias, 0.5)  # sure of everything
    distiller = pair.distiller([], teacher, LABELS={"SCORE": 0.3, "MAX_IOU": 1.0})
    ret_dict, tb_dict, _ = distiller(dict(pair.batch))
    assert tb_dict["kd/labels/added"] > 0 and ret_dict["loss"].isfinite()
    targets = distiller.student.dense_head.forward_ret_dict
    positive = targets["box_cls_labels"] > 0
    alone = pair.network(0.125, seed=1).train()
    alone(dict(pair.batch))
    assert positive.sum() > (alone.dense_head.forward_ret_dict["box_cls_labels"] > 0).sum()
    velocities = targets["box_reg_targets"][positive][:, 8:]
    assert velocities.isfinite().all() and len(velocities.unique(dim=0)) > 1  # not only the labels' own
