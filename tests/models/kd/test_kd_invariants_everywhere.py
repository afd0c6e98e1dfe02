"""What distillation promises, on SECOND, on PointRCNN and with a teacher on a grid of its own."""

import copy

import pytest
import torch
from easydict import EasyDict
from kd_detectors import NEAR, POINTS, VOXELS, network, point_rcnn, pointrcnn, second, second_cfg, voxel_batch
from kd_pairs import kd_terms, pp
from support.gpu import skip_where_spconv_cannot_run

from pcdet.engine.checkpoint import checkpoint_state, load_checkpoint
from pcdet.engine.optim import build_optimizer
from pcdet.models.kd import build_distiller
from pcdet.models.kd.features.taps import Taps
from pcdet.models.kd.features.teacher_batch import teacher_input
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.step import Step

PILLARS = pp.dataset_facts((0.0, -2.56, -3.0, 5.12, 2.56, 1.0))
SMALL = {"NAME": "PointDistiller", "SAMPLE": {"NUM": 30}, "GRAPH": {"K": 8}}
WITHOUT_NORM = {"ADAPTER": {"TEACHER": "none", "STUDENT": "linear"}}
STAGES = SMALL | {"FEATURE": ["backbone_2d.blocks.0", "backbone_2d.blocks.1"]}
SET = {"SAMPLE": {"NUM": 30}}
SETS = ["AttentionTransfer", "SimilarityPreserving", "RKD", "CRD", "FeatureBased", "Overhaul"]
BOXES = {"NAME": "BoxConsistency", "THRESHOLD": 0.001, "STUDENT_THRESHOLD": 0.001, "IOU": 0.2, "NUM": 300}
ON_PREDICTIONS = ("PivotalLogit", "BoxConsistency")
LOSSES = {
    "second": [STAGES, SMALL | {"FEATURE": "multi_scale_3d_features.x_conv3"}, {"NAME": "PivotalLogit"}],
    "second, by its map": [
        *({"NAME": name, "FEATURE": "spatial_features_2d"} for name in ("PKD", "CWD", "MGD", "FGFI", "FGD")),
        {"NAME": "DKD"},
    ],
    "pointrcnn": [SMALL | {"FEATURE": "point_features"}, {"NAME": "FitNet", "FEATURE": "point_features"}],
    "pointrcnn, by set": [{"NAME": name, "FEATURE": "point_features"} for name in ("PKD", "CWD")],
    "another grid": [
        SMALL | {"FEATURE": "spatial_features_2d"},
        SMALL | {"FEATURE": "pillar_features", "TEACHER_FEATURE": "spatial_features_2d"},
        *({"NAME": name, "FEATURE": "spatial_features_2d"} for name in ("PKD", "CWD")),
    ],
    "second, sets of rows": [
        {"NAME": "AttentionTransfer", "FEATURE": "backbone_2d.blocks.0"},
        SET | {"NAME": "SimilarityPreserving", "FEATURE": "backbone_2d.blocks.1"},
        SET | {"NAME": "RKD", "FEATURE": "multi_scale_3d_features.x_conv3"},
        SET | {"NAME": "CRD", "FEATURE": "spatial_features_2d"},
        SET | {"NAME": "FeatureBased", "FEATURE": "encoded_spconv_tensor"},
        SET | {"NAME": "Overhaul", "FEATURE": "backbone_2d.deblocks.0.1"},
        BOXES,
    ],
    "pointrcnn, sets of rows": [SET | {"NAME": name, "FEATURE": "point_features"} for name in SETS],
    "another grid, sets of rows": [
        SET | {"NAME": name, "FEATURE": "pillar_features", "TEACHER_FEATURE": "spatial_features_2d"} for name in SETS
    ],
}
OPTIMIZATION = {
    "BATCH_SIZE_PER_GPU": 2,
    "NUM_EPOCHS": 2,
    "OPTIMIZER": "adam_onecycle",
    "LR": 0.01,
    "WEIGHT_DECAY": 0.01,
    "GRAD_NORM_CLIP": 10,
}
everywhere = pytest.mark.parametrize("case", LOSSES)


def data_config(facts, max_points):
    step = {
        "NAME": "transform_points_to_voxels",
        "VOXEL_SIZE": list(facts.voxel_size),
        "MAX_POINTS_PER_VOXEL": max_points,
        "MAX_NUMBER_OF_VOXELS": {"train": 16000, "test": 40000},
    }
    return {"POINT_CLOUD_RANGE": [float(v) for v in facts.point_cloud_range], "DATA_PROCESSOR": [step]}


def build(case, losses=None, seed=7):
    """(distiller in training mode, a batch of two frames, what makes a plain student)."""
    torch.manual_seed(seed)
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": losses or LOSSES[case]})
    if case.startswith("second"):
        plain, facts, keys, batch = (
            lambda: second(0.125, seed=1),
            VOXELS,
            {"teacher": second(0.25, seed=2)},
            voxel_batch(),
        )
    elif case.startswith("pointrcnn"):
        plain, facts, keys = lambda: point_rcnn(0.125, seed=1), POINTS, {"teacher": point_rcnn(0.25, seed=2)}
        batch = pointrcnn.random_batch(points=256)
    else:
        pytest.importorskip("spconv")
        fine = pp.dataset_facts(NEAR, (0.05, 0.05, 0.1))
        plain, facts, batch = lambda: network(pp.tiny_model_cfg(), PILLARS, seed=1), PILLARS, voxel_batch(PILLARS)
        keys = {"teacher": network(second_cfg(0.25), fine, seed=2)}
        keys["own_input"] = teacher_input(
            {"DATA_CONFIG": data_config(fine, 5)}, {"DATA_CONFIG": data_config(PILLARS, 32)}, PILLARS
        )
    return build_distiller(cfg, plain(), facts, **keys).train(), batch, plain


def frames(batch, *order):
    """The frames of a batch in this order; None stands for one without points."""
    chosen = dict(
        batch,
        batch_size=len(order),
        gt_boxes=torch.stack(
            [torch.zeros_like(batch["gt_boxes"][0]) if old is None else batch["gt_boxes"][old] for old in order]
        ),
    )
    for keys, where in ((("voxels", "voxel_coords", "voxel_num_points"), "voxel_coords"), (("points",), "points")):
        if where not in batch:
            continue
        rows = [(batch[where][:, 0] == (-1 if old is None else old)).nonzero()[:, 0] for old in order]
        for key in keys:
            chosen[key] = batch[key][torch.cat(rows)].clone()
        chosen[where][:, 0] = torch.arange(len(order)).repeat_interleave(torch.tensor([len(r) for r in rows])).float()
    return chosen


def step(distiller, batch):
    distiller.zero_grad()
    torch.manual_seed(3)
    ret_dict, tb_dict, _ = distiller(batch)
    ret_dict["loss"].backward()
    return tb_dict


@everywhere
def test_the_terms_do_not_depend_on_the_device(case, device):
    if not case.startswith("pointrcnn"):
        skip_where_spconv_cannot_run(device)
    (distiller, batch, _), (moved, _, _) = build(case), build(case)
    there = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    expected, found = kd_terms(step(distiller, batch)), kd_terms(step(moved.to(device), there))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


@everywhere
def test_the_teacher_is_neither_changed_nor_trained_nor_stored(case):
    distiller, batch, plain = build(case)
    before = copy.deepcopy(distiller.teacher.state_dict())
    step(distiller, batch)
    assert all(p.grad is None for p in distiller.teacher.parameters())
    for name, value in distiller.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    owned = [t.data_ptr() for t in (*distiller.parameters(), *distiller.buffers()) if t.numel()]
    assert not {t.data_ptr() for t in distiller.teacher.state_dict().values()} & set(owned)
    assert list(distiller.student.state_dict()) == list(plain().state_dict())


@everywhere
def test_the_order_of_frames_does_not_matter(case):
    distiller, batch, _ = build(case)
    logs = [kd_terms(step(distiller, frames(batch, *order))) for order in ((0, 1), (1, 0))]
    for key, value in logs[0].items():
        if not key.endswith("explained"):
            assert logs[1][key] == pytest.approx(value, rel=1e-3, abs=1e-6), key


@everywhere
def test_another_frame_does_not_change_a_frames_own_terms(case):
    nodes = [node | WITHOUT_NORM if node["NAME"] == "PointDistiller" else node for node in LOSSES[case]]
    distiller, batch, _ = build(case, [node for node in nodes if node["NAME"] not in ON_PREDICTIONS])
    distiller.student.eval()  # batch statistics couple frames, with or without a teacher
    if case == "second, by its map":
        distiller.student.dense_head.train()  # it assigns its targets then
    values = []
    for order in ((0,), (1,), (0, 1)):
        own = frames(batch, *order)
        labels = list(distiller.losses)
        with torch.no_grad(), Taps(distiller.student, distiller._taps("student", labels)) as taps:
            out = distiller.student.forward_features(dict(own))
        student = ModelOutputs(distiller.student, out, taps.complete(out), distiller.geometry)
        own_step = Step(student, distiller._run_teacher(own, labels), own)
        torch.manual_seed(3)
        values.append([float(loss(own_step)[0].detach()) for loss in distiller.losses.values()])
    for label, a, b, both in zip(distiller.losses, *values, strict=True):
        assert a > 0 and b > 0 and both == pytest.approx((a + b) / 2, rel=1e-4), label


@pytest.mark.parametrize("case", [case for case in LOSSES if not case.startswith("pointrcnn")])  # of equal frames
@pytest.mark.parametrize("order", [(0, None), (None, 1), (None, None)], ids=str)
def test_frames_without_points_give_finite_losses_and_all_gradients(case, order):
    distiller, batch, _ = build(case)
    tb_dict = step(distiller, frames(batch, *order))
    assert all(torch.tensor(v).isfinite() for v in tb_dict.values()), tb_dict
    for name, parameter in distiller.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


@everywhere
def test_in_half_precision_the_losses_are_finite_and_reach_the_student(case):
    distiller, batch, _ = build(case)
    full = kd_terms(step(distiller, batch))
    distiller.zero_grad()
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        ret_dict, tb_dict, _ = distiller(batch)
    ret_dict["loss"].backward()
    for label in distiller.losses:
        assert tb_dict[f"kd/{label}"] == pytest.approx(full[f"kd/{label}"], rel=0.1), label
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in distiller.parameters() if p.requires_grad)


@everywhere
def test_a_resumed_run_has_the_same_adapters_frozen_ones_too(case):
    """And a target's first variance, whatever the seed of the new process."""
    distiller, batch, _ = build(case)
    optimizer = build_optimizer(distiller, OPTIMIZATION)
    step(distiller, batch)
    optimizer.step()
    state = checkpoint_state(distiller, optimizer, 1, 1)
    other, _, _ = build(case, seed=8)
    load_checkpoint(state, other, build_optimizer(other, OPTIMIZATION))
    given, wanted = kd_terms(step(other, batch)), kd_terms(step(distiller, batch))
    explained = {key for key in wanted if key.endswith("explained")}  # computed at intervals
    assert given.keys() == wanted.keys()
    for key in given.keys() - explained:
        assert given[key] == pytest.approx(wanted[key], rel=1e-6), key
