"""A teacher and a student small enough to distil in milliseconds."""

import torch
from easydict import EasyDict
from models import pointpillars as pp
from support.detectors import network
from torch import nn

from pcdet.models.kd import build_distiller

FACTS = pp.dataset_facts(pp.TINY_RANGE)

PILLARS = {"NAME": "PointDistiller", "FEATURE": "pillar_features", "SAMPLE": {"NUM": 40}}
MAP = {"NAME": "PointDistiller", "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 20}, "GRAPH": {"CANDIDATES": 80}}
LOGITS = {"NAME": "PivotalLogit"}
ON_MAP = {"FEATURE": "spatial_features_2d"}


def detector(seed=0, **changes):
    """A PointPillars with seeded weights and running statistics that are not the initial ones."""
    model = network(pp.tiny_model_cfg(**changes), FACTS, seed)
    nn.init.normal_(model.dense_head.conv_box.weight, std=0.1)
    return model


def wide_detector(seed=1):
    """The teacher: twice the student's width."""
    return detector(
        seed,
        VFE={"NUM_FILTERS": [16]},
        MAP_TO_BEV={"NUM_BEV_FEATURES": 16},
        BACKBONE_2D={"NUM_FILTERS": [16, 16, 32], "NUM_UPSAMPLE_FILTERS": [16, 16, 16]},
    )


def distil(*losses, student=None, teacher=None, **block):
    """A distiller in training mode with these KD.LOSSES and further keys of the block."""
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": list(losses), **block})
    torch.manual_seed(7)
    built = build_distiller(cfg, student or detector(), FACTS, teacher=teacher or wide_detector())
    return built.train()


def kd_terms(tb_dict):
    """The KD entries of a tb_dict."""
    return {key: value for key, value in tb_dict.items() if key.startswith("kd/")}


def train(distiller, batch, steps=6):
    """The sum of the KD losses, and all logs, of every step of a short training on one batch."""
    optimizer = torch.optim.Adam([p for p in distiller.parameters() if p.requires_grad], lr=3e-3)
    logs = []
    for _ in range(steps):
        ret_dict, tb_dict, _ = distiller(batch)
        optimizer.zero_grad()
        ret_dict["loss"].backward()
        optimizer.step()
        logs.append(tb_dict)
    return [tb_dict["kd/total"] for tb_dict in logs], logs


def step(distiller, batch):
    """tb_dict of one training step, with gradients left on the parameters; whatever is drawn is the same each time."""
    distiller.zero_grad()
    torch.manual_seed(3)
    ret_dict, tb_dict, _ = distiller(batch)
    ret_dict["loss"].backward()
    return tb_dict


def silence(teacher, student, *, first=False):
    """Sets to zero what every layer of the teacher puts into channels that the student does not have.

    With ``first`` as many channels at the beginning instead of the end.
    """
    own = dict(student.named_modules())
    for path, module in teacher.named_modules():
        channels = next(
            (getattr(own[path], n) for n in ("out_channels", "out_features") if hasattr(own[path], n)), None
        )
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name in ("weight", "bias", "running_mean"):
                rest = module.num_features - own[path].num_features
                getattr(module, name).data.narrow(0, 0 if first else own[path].num_features, rest).zero_()
        elif channels is not None:
            axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            rest = module.weight.shape[axis] - channels
            module.weight.data.narrow(axis, 0 if first else channels, rest).zero_()
            if module.bias is not None:
                module.bias.data.narrow(0, 0 if first else channels, rest).zero_()
