"""Distillation of CenterPoint: every loss on it, its labels, slices and scores; training, resuming, half precision."""

import copy

import pytest
import torch
from easydict import EasyDict
from kd_centers import LOGITS, batch_of, center_point, distil, heat_of, pp
from kd_pairs import kd_terms, silence, step, train
from models.centerpoints import center_cfg
from support.detectors import network

from pcdet.engine.checkpoint import checkpoint_state, load_checkpoint
from pcdet.engine.optim import build_optimizer
from pcdet.models import build_network
from pcdet.models.kd.init.channel_choice import flow_of, inherit_channels
from pcdet.models.kd.init.weight_slicing import inherit_weights
from pcdet.models.kd.teacher_labels import LabelsConfig, with_teacher_boxes
from pcdet.registry import KD_LOSSES, ConfigError

SMALL = {"SAMPLE": {"NUM": 40}, "GRAPH": {"K": 8}}
ROWS = {"FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 40}}
ON_MAP = {"FEATURE": "spatial_features_2d"}
PILLARS = {"NAME": "PointDistiller", "FEATURE": "pillar_features", **SMALL}
BOXES = {"NAME": "BoxConsistency", "THRESHOLD": 0.001, "STUDENT_THRESHOLD": 0.001, "IOU": 0.2, "NUM": 200}
EVERY_LOSS = {
    **{name: ROWS for name in ("FitNet", "SimilarityPreserving", "RKD", "CRD", "FeatureBased", "PKD", "CWD")},
    **{name: ON_MAP for name in ("AttentionTransfer", "MGD", "FGD")},
    "PointDistiller": ON_MAP | SMALL | {"GRAPH": {"K": 8, "CANDIDATES": 80}},
    "Overhaul": {"FEATURE": "backbone_2d.deblocks.0.1", "SAMPLE": {"NUM": 40}},
    "PivotalLogit": {},
    "DKD": {},
    "BoxConsistency": BOXES,
}
REFUSED = {"FGFI": (ON_MAP, "FGFI looks at anchors near objects, which CenterHead does not tell")}
NUSCENES = ["car", "truck", "construction_vehicle", "bus", "trailer"]
NUSCENES += ["barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone"]
SIX_GROUPS = [NUSCENES[:1], NUSCENES[1:3], NUSCENES[3:5], NUSCENES[5:6], NUSCENES[6:8], NUSCENES[8:]]
OPTIMIZATION = {
    "BATCH_SIZE_PER_GPU": 2,
    "NUM_EPOCHS": 2,
    "OPTIMIZER": "adam_onecycle",
    "LR": 0.01,
    "WEIGHT_DECAY": 0.01,
    "GRAD_NORM_CLIP": 10,
}


def test_every_loss_of_the_project_is_tried_here_or_known_to_be_refused():
    assert {*EVERY_LOSS, *REFUSED} == set(KD_LOSSES.names())


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_a_loss_on_a_center_point_reaches_the_student_and_all_that_it_trains(name):
    distiller = distil({"NAME": name, **EVERY_LOSS[name]})
    torch.manual_seed(3)
    ret_dict, tb_dict, _ = distiller(batch_of())
    (ret_dict["loss"] - distiller.student.get_training_loss()[0]).backward()
    assert tb_dict[f"kd/{name}"] > 0 and all(torch.tensor(v).isfinite() for v in tb_dict.values())
    assert distiller.student.backbone_2d.blocks[0][1].weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in distiller.losses.parameters() if p.requires_grad)
    assert all(p.grad is None for p in distiller.teacher.parameters())


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_that_a_center_point_has_nothing_for_is_refused_before_the_first_step(name):
    node, message = REFUSED[name]
    with pytest.raises(ConfigError, match=rf"KD.LOSSES\[0\]: {message}"):
        distil({"NAME": name, **node})


def test_the_defaults_of_the_logits_are_those_of_the_students_head():
    from kd_pairs import distil as distil_anchors

    for build, by_score, reg_over, beta in ((distil, True, "batch", 0.0), (distil_anchors, False, "frame", 1 / 9)):
        loss = build(LOGITS).losses["PivotalLogit"]
        assert (loss.by_score, loss.reg_over, loss.beta) == (by_score, reg_over, beta)
    assert distil(LOGITS | {"BY_SCORE": False}).losses["PivotalLogit"].by_score is False


def test_rows_by_score_are_those_of_the_highest_peaks_and_the_teacher_decodes_no_box():
    distiller = distil({"NAME": "FitNet", "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 25, "BY": "score"}})
    head, seen = distiller.teacher.dense_head, []
    head.final_boxes = lambda: pytest.fail("the teacher decoded its boxes")
    steps, forward = [], distiller.losses["FitNet"].forward
    distiller.losses["FitNet"].forward = lambda step, **keys: steps.append(step) or forward(step, **keys)
    distiller(batch_of())
    seen = steps[0].importance("spatial_features_2d", "spatial_features_2d", "score")
    with torch.no_grad():
        distiller.teacher.forward_features(batch_of(), decode_boxes=False)
    torch.testing.assert_close(seen.double(), torch.from_numpy(heat_of(distiller.teacher).max(axis=1)).flatten())


# ------------------------------------------------------------------------------------------------------------- labels


def sure_teacher():
    """One that is sure of boxes all over the range."""
    teacher = center_point(1, 1, velocity=True).eval()
    for branch in teacher.dense_head.heads_list:
        torch.nn.init.normal_(branch["hm"][-1].weight, std=20.0)
    return teacher


def test_training_is_a_plain_students_on_labels_joined_with_the_teachers_boxes_and_velocities():
    batch, teacher, student = batch_of(velocity=True), sure_teacher(), center_point(0, velocity=True)
    with torch.no_grad():
        final = copy.deepcopy(teacher)(dict(batch))[0]
    joined, logs = with_teacher_boxes(batch["gt_boxes"], final, LabelsConfig(score=0.5))
    assert logs["added"] > 1 and joined.shape[2] == 10
    wanted = max(final[0]["pred_scores"].tolist())
    row = final[0]["pred_boxes"][final[0]["pred_scores"].argmax()]
    assert wanted > 0.5 and bool((joined[0, :, :9] == row).all(dim=1).any()), "velocities and all"
    plain = copy.deepcopy(student).train()
    plain({**batch, "gt_boxes": joined})[0]["loss"].backward()
    distiller = distil(student=student, teacher=teacher, LABELS={"SCORE": 0.5})
    assert step(distiller, batch)["kd/labels/added"] == logs["added"]
    for (name, ours), theirs in zip(student.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


def test_a_frame_without_labels_is_taught_by_the_teachers_boxes_and_by_logits_around_them():
    batch, keys = batch_of(velocity=True), {"SCORE": 0.5}
    batch["gt_boxes"] = torch.zeros_like(batch["gt_boxes"])
    distiller = distil(LOGITS, student=center_point(0, velocity=True), teacher=sure_teacher(), LABELS=keys)
    logs = step(distiller, batch)
    masks = distiller.student.dense_head.forward_ret_dict["target_dicts"]["masks"]
    assert sum(int(mask.sum()) for mask in masks) == 2 * logs["kd/labels/added"] > 2
    assert logs["kd/PivotalLogit/pivots"] > 10 and logs["kd/PivotalLogit/reg"] > 0


def test_scores_of_a_centre_head_are_read_as_probabilities_whatever_output_raw_score_says():
    added = []
    for raw in (False, True):
        teacher = sure_teacher()
        object.__setattr__(teacher.post_processing_cfg, "output_raw_score", raw)
        distiller = distil(student=center_point(0, velocity=True), teacher=teacher, LABELS={"SCORE": 0.6})
        added.append(step(distiller, batch_of(velocity=True))["kd/labels/added"])
    assert added[0] == added[1] > 0


# ------------------------------------------------------------------------------------------------------------- slices


def six_groups(width, seed):
    """A CenterPoint of the ten classes of nuScenes in its six groups."""
    facts = pp.dataset_facts(pp.TINY_RANGE, class_names=NUSCENES)
    cfg = center_cfg(True, CLASS_NAMES_EACH_HEAD=SIX_GROUPS)
    cfg.WIDTH = width
    torch.manual_seed(seed)
    model = build_network(cfg, num_class=10, dataset=facts)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("how", ["slice", "l1"])
def test_a_student_of_six_groups_is_its_teacher_with_the_other_channels_silent(how):
    student, teacher, batch = six_groups(0.5, 1), six_groups(1, 2), batch_of(velocity=True)
    wide = maps_of(copy.deepcopy(teacher), batch)
    silence(teacher, student, first=how != "slice")
    copied = inherit_weights(student, teacher) if how == "slice" else inherit_channels(student, teacher, how)
    assert copied == sum(value.is_floating_point() for value in student.state_dict().values())
    given, wanted = maps_of(student, batch), maps_of(teacher, batch)
    for a, b in zip(given, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert not all(torch.allclose(a, b) for a, b in zip(wide, wanted, strict=True)), "nothing was silenced"


def maps_of(model, batch):
    """All raw predictions, branch by branch."""
    with torch.no_grad():
        model.eval().forward_features(dict(batch), decode_boxes=False)
    return [part for out in model.dense_head.forward_ret_dict["pred_dicts"] for part in out.values()]


def test_every_tensor_of_six_groups_is_named():
    model = six_groups(1, 0)
    flow = flow_of(model)
    paths = {name.rpartition(".")[0] for name, value in model.state_dict().items() if value.is_floating_point()}
    assert paths == {*flow.makes, *flow.norms}


# ----------------------------------------------------------------------------------------------------------- training


def test_a_student_of_a_quarter_of_the_parameters_comes_nearer_to_its_teacher():
    distiller = distil(
        LOGITS, PILLARS, student=center_point(0, 0.5), teacher=center_point(1, 1), INIT={"NAME": "slice"}
    )
    counts = [sum(p.numel() for p in m.parameters()) for m in (distiller.teacher, distiller.student)]
    assert 3 < counts[0] / counts[1] < 5
    totals, logs = train(distiller, batch_of(), steps=8)
    assert totals[-1] < 0.8 * totals[0]
    assert logs[-1]["kd/PivotalLogit"] < logs[0]["kd/PivotalLogit"] and logs[-1]["rpn_loss"] < logs[0]["rpn_loss"]


def test_a_resumed_training_goes_on_bit_by_bit():
    losses, batch = (LOGITS, PILLARS, {"NAME": "DKD"}), batch_of()
    whole, parts = distil(*losses), distil(*losses)
    optimizers = [build_optimizer(d, OPTIMIZATION) for d in (whole, parts)]
    for distiller, optimizer in zip((whole, parts), optimizers, strict=True):
        step(distiller, batch)
        optimizer.step()
    state = copy.deepcopy(checkpoint_state(parts, optimizers[1], 1, 1))
    resumed = distil(*losses, student=center_point(5))
    optimizer = build_optimizer(resumed, OPTIMIZATION)
    load_checkpoint(state, resumed, optimizer)
    for distiller, own in ((whole, optimizers[0]), (resumed, optimizer)):
        step(distiller, batch)
        own.step()
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_in_half_precision_the_losses_on_predictions_are_those_of_full_precision():
    distiller = distil(LOGITS, {"NAME": "DKD"}, BOXES)
    full = kd_terms(step(distiller, batch_of()))
    distiller.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        ret_dict, tb_dict, _ = distiller(batch_of())
    ret_dict["loss"].backward()
    assert distiller.student.dense_head.forward_ret_dict["pred_dicts"][0]["hm"].dtype == torch.bfloat16
    for label in ("PivotalLogit", "DKD"):
        assert tb_dict[f"kd/{label}"] == pytest.approx(full[f"kd/{label}"], rel=0.1), label
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in distiller.parameters() if p.requires_grad)


def test_voxel_features_of_a_sparse_center_point_are_distilled():
    pytest.importorskip("spconv")
    from kd_detectors import NEAR, VOXELS, second_cfg, voxel_batch

    models = []
    for width, seed in ((0.125, 1), (0.25, 2)):
        cfg = second_cfg(width)
        cfg.NAME, cfg.DENSE_HEAD = "CenterPoint", center_cfg().DENSE_HEAD
        cfg.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE = 8
        cfg.POST_PROCESSING = EasyDict(RECALL_THRESH_LIST=[0.3], EVAL_METRIC="kitti")
        models.append(network(cfg, VOXELS, seed))
    sparse = {"NAME": "PointDistiller", "FEATURE": "multi_scale_3d_features.x_conv3", **SMALL}
    distiller = distil(sparse, LOGITS, student=models[0], teacher=models[1], facts=VOXELS)
    logs = step(distiller, voxel_batch())
    assert NEAR and logs["kd/PointDistiller"] > 0 and logs["kd/PivotalLogit"] > 0
    assert next(models[0].backbone_3d.parameters()).grad.abs().sum() > 0
