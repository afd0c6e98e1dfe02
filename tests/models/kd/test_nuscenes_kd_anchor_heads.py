"""Every loss on PointPillars and SECOND of nuScenes works with branches and velocities.

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
from pcdet.registry import KD_LOSSES

FOLDER = Path(__file__).resolve().parents[3] / "tools/cfgs/nuscenes_models"
NEAR = (-3.2, -3.2, -5.0, 3.2, 3.2, 3.0)
SIZES = {1: (4.6, 1.9, 1.7), 8: (1.7, 0.6, 1.2), 9: (0.7, 0.7, 1.7)}  # car, bicycle, pedestrian

ON_MAP = {"FEATURE": "spatial_features_2d"}
ON_CELLS = ON_MAP | {"SAMPLE": {"NUM": 40, "BY": "num_points"}}
ANY_BOX = {"THRESHOLD": 0.0, "STUDENT_THRESHOLD": 0.0, "IOU": 0.1}
LOSSES = {
    "PointDistiller": ON_MAP | {"SAMPLE": {"NUM": 40}, "GRAPH": {"K": 4}},  # its cells by the teacher's score
    **dict.fromkeys(("SimilarityPreserving", "RKD", "CRD", "FeatureBased"), ON_CELLS),
    **dict.fromkeys(("FitNet", "AttentionTransfer", "PKD", "CWD", "MGD", "FGD"), ON_MAP),
    "Overhaul": ON_CELLS | {"FEATURE": "backbone_2d.deblocks.0.1"},
    **{"PivotalLogit": {}, "DKD": {}, "BoxConsistency": ANY_BOX, "FGFI": ON_MAP},
}
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


def test_all_losses_teach_the_student(pair):
    assert sorted(LOSSES) == sorted(KD_LOSSES.names())
    distiller = pair.distiller([{"NAME": name} | keys for name, keys in LOSSES.items()])
    ret_dict, tb_dict, _ = distiller(dict(pair.batch))
    terms = {name: tb_dict[f"kd/{name}"] for name in LOSSES}
    assert all(np.isfinite(value) and value > 0 for value in terms.values()), terms
    ret_dict["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distiller.student.parameters())


@pytest.mark.parametrize("name", ["PivotalLogit", "DKD"])
def test_losses_at_objects_teach_the_branches_that_have_their_classes(pair, name):
    distiller = pair.distiller([{"NAME": name}])
    _, step, _ = distiller.run_models(dict(pair.batch))
    (term,) = distiller.terms(step)
    term.value.backward()
    branches = distiller.student.dense_head.rpn_heads
    taught = [i for i, branch in enumerate(branches) if branch.conv_cls[-1].weight.grad.any()]
    assert taught == [0, 4, 5]  # cars; motorcycles and bicycles; pedestrians and cones


@pytest.mark.parametrize("ratio", ["2x", "4x"])
def test_the_shipped_student_with_logits_begins_with_slices_and_takes_a_step(ratio):
    pair = Pair("cbgs_pp_multihead")
    cfg = cfg_from_yaml_file(FOLDER / f"kd/cbgs_pp_multihead_{ratio}_logits.yaml", EasyDict())
    student, teacher = (pair.network(width, seed=1) for width in (cfg.MODEL.WIDTH, 1))
    distiller = build_distiller(cfg, student, pair.facts, teacher=teacher).train()
    first = [model.dense_head.shared_conv[0].weight for model in (teacher, student)]
    assert torch.equal(first[1][:, :10], first[0][: len(first[1]), :10])
    assert distiller(dict(pair.batch))[1]["kd/PivotalLogit"] > 0


def test_a_teacher_stops_before_it_decodes_boxes(pair):
    distiller = pair.distiller([{"NAME": "PivotalLogit"}])
    head = distiller.teacher.dense_head
    head.finish = lambda *_: pytest.fail("the teacher's head went on behind its last branch")
    assert distiller(dict(pair.batch))[1]["kd/PivotalLogit"] > 0


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
