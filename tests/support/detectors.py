"""Detectors whose every weight and statistic differs from where training begins, so that a mix-up shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pcdet.models import build_network


def network(cfg: Any, facts: Any, seed: int) -> nn.Module:
    """A detector for the classes of ``facts``, with seeded weights and running statistics unlike the initial ones."""
    torch.manual_seed(seed)
    model = build_network(cfg, num_class=len(facts.class_names), dataset=facts)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model
