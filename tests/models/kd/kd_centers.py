"""CenterPoints of a few channels to distil: teachers and students of any groups, with or without velocities."""

from __future__ import annotations

import numpy as np
import torch
from easydict import EasyDict
from kd_pairs import pp
from models.centerpoints import center_cfg, with_velocities
from support.detectors import network

from pcdet.models.kd import build_distiller

FACTS = pp.dataset_facts(pp.TINY_RANGE)
CELLS = (32, 32)
LOGITS = {"NAME": "PivotalLogit"}


def center_point(seed=0, width=0.5, *, velocity=False, facts=FACTS, strides=(2, 2, 2), **head):
    """A CenterPoint whose heat maps have scores all over [0, 1]; ``head``: keys of its DENSE_HEAD that are changed."""
    cfg = center_cfg(velocity, **head)
    cfg.VFE.NUM_FILTERS, cfg.MAP_TO_BEV.NUM_BEV_FEATURES = [16], 16
    cfg.BACKBONE_2D.update(NUM_FILTERS=[16, 16, 32], NUM_UPSAMPLE_FILTERS=[16, 16, 16], LAYER_STRIDES=list(strides))
    cfg.DENSE_HEAD.SHARED_CONV_CHANNEL = 16
    cfg.WIDTH = width
    model = network(cfg, facts, seed)
    for branch in model.dense_head.heads_list:
        torch.nn.init.normal_(branch["hm"][-1].weight, std=2.0)
        for name in model.dense_head.code_names:
            torch.nn.init.normal_(branch[name][-1].weight, std=0.05)
    return model


def batch_of(*, velocity=False, facts=FACTS):
    """Two frames, of which the second has fewer objects."""
    batch = pp.random_batch(facts, frames=2, points=300, seed=3)
    batch["gt_boxes"][1, 2:] = 0
    return with_velocities(batch) if velocity else batch


def distil(*losses, student=None, teacher=None, logger=None, facts=FACTS, **block):
    """A distiller in training mode with these KD.LOSSES and further keys of the block."""
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": list(losses), **block})
    torch.manual_seed(7)
    student, teacher = student or center_point(0), teacher or center_point(1, 1)
    return build_distiller(cfg, student, facts, logger, teacher=teacher).train()


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def heat_of(model):
    """(B, classes, cells) scores of the last forward, in the order of the class ids, float64."""
    head = model.dense_head
    maps = torch.cat([out["hm"] for out in head.forward_ret_dict["pred_dicts"]], dim=1).flatten(2)
    ids = [i for group in head.class_ids for i in group]
    return sigmoid(maps.detach().double().numpy())[:, np.argsort(ids)]


def codes_of(model, class_id):
    """(B, codes, cells) box codes of the last forward of the branch that has a class, float64."""
    head = model.dense_head
    branch = next(i for i, ids in enumerate(head.class_ids) if class_id in ids)
    out = head.forward_ret_dict["pred_dicts"][branch]
    return torch.cat([out[name] for name in head.code_names], dim=1).flatten(2).detach().double().numpy()


def bells_of(model):
    """For each branch its targets of the last forward as (B, cells): the highest bell."""
    targets = model.dense_head.forward_ret_dict["target_dicts"]
    return [bells.amax(dim=1).flatten(1).double().numpy() for bells in targets["heatmaps"]]


def objects_of(model, branch):
    """(frame, cell) of every object of a branch's targets."""
    targets = model.dense_head.forward_ret_dict["target_dicts"]
    masks, inds = targets["masks"][branch], targets["inds"][branch]
    return [(f, int(inds[f, slot])) for f, slot in masks.nonzero().tolist()]
