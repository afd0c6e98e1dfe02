"""adam_onecycle against OpenPCDet's own numbers: learning rates, momenta, and twenty steps of a small network."""

import json
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from pcdet.engine.optim import build_optimizer, build_scheduler

SCHEDULES = ["kitti_pp_100", "kitti_pp_37", "pointrcnn_250", "nus_57", "odd_7"]


def optimization_node(text):
    """(OPTIMIZATION node, iterations per epoch, epochs) of a golden's JSON."""
    cfg = json.loads(str(text))
    iters, epochs = cfg.pop("iters_per_epoch"), cfg.pop("epochs")
    for key in ("salt", "param_groups"):
        cfg.pop(key, None)
    return {**cfg, "BATCH_SIZE_PER_GPU": 4, "NUM_EPOCHS": epochs}, iters, epochs


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 16, bias=False)
        self.bn = nn.BatchNorm1d(16)
        self.b = nn.Linear(16, 12)
        self.c = nn.Sequential(nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x):
        return self.c(self.b(torch.relu(self.bn(self.a(x)))))


def fill(model, salt):
    """The fill rule of the goldens' README, for the kinds of entries that an MLP has."""
    state = {}
    for name, value in model.state_dict().items():
        n = np.random.Generator(np.random.PCG64(zlib.crc32(f"{salt}:{name}".encode()))).standard_normal(value.shape)
        if name.endswith("num_batches_tracked"):
            n = np.zeros(value.shape)
        elif name.endswith("running_mean"):
            n = 0.1 * n
        elif name.endswith("running_var"):
            n = 1 + 0.1 * np.abs(n)
        elif name.endswith("bias"):
            n = 0.05 * n
        elif value.ndim == 1:
            n = 1 + 0.1 * n
        else:
            n = n * np.sqrt(2.0 / (np.prod(value.shape) // value.shape[0]))
        state[name] = torch.as_tensor(n).to(value.dtype)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("name", SCHEDULES)
def test_onecycle_follows_the_reference_at_every_iteration(goldens, name):
    golden = np.load(goldens / "reference/targets/onecycle.npz")
    node, iters, epochs = optimization_node(golden[f"{name}.cfg"])
    optimizer = build_optimizer(nn.Linear(2, 2), node)
    scheduler = build_scheduler(optimizer, iters, epochs, -1, node)
    lr, betas = [], []
    for it in range(iters * epochs):
        scheduler.step(it)
        lr.append(scheduler.lr)
        betas.append(optimizer.param_groups[0]["betas"])
    np.testing.assert_allclose(lr, golden[f"{name}.lr"], rtol=1e-12)
    np.testing.assert_allclose(betas, golden[f"{name}.betas"], rtol=1e-12)
    np.testing.assert_allclose(np.array(betas)[:, 0], golden[f"{name}.mom"], rtol=1e-12)


@pytest.mark.parametrize("prefix, dtype, tolerance", [("", torch.float32, 1e-5), ("f64.", torch.float64, 1e-6)])
def test_twenty_steps_of_a_network_follow_the_reference(goldens, prefix, dtype, tolerance):
    golden = np.load(goldens / "reference/targets/adam_onecycle_mlp.npz")
    salt = json.loads(str(golden["cfg"]))["salt"]
    node, iters, epochs = optimization_node(golden["cfg"])
    model = fill(Mlp(), salt).to(dtype).train()
    optimizer = build_optimizer(model, node)
    scheduler = build_scheduler(optimizer, iters, epochs, -1, node)
    shapes = [[list(p.shape) for p in group["params"]] for group in optimizer.param_groups]
    assert shapes == json.loads(str(golden["cfg"]))["param_groups"]
    for k in range(iters):
        scheduler.step(k)
        optimizer.zero_grad()
        x, y = (torch.as_tensor(golden[key][k]).to(dtype) for key in ("X", "Y"))
        loss = (model(x) - y).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), node["GRAD_NORM_CLIP"])
        optimizer.step()
        assert loss.item() == pytest.approx(golden["loss64" if prefix else "loss"][k], rel=1e-5)
        assert norm.item() == pytest.approx(golden["grad_norm_before_clip"][k], rel=1e-4)
        for name, value in model.state_dict().items():
            key = f"{prefix}step{k + 1}.{name}"
            if key in golden:
                np.testing.assert_allclose(value.numpy(), golden[key], atol=tolerance, err_msg=key)
    assert f"{prefix}step{iters}.a.weight" in golden
