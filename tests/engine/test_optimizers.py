"""Parameter groups, schedules and the OPTIMIZATION block; OpenPCDet's numbers are in tests/goldens/test_optim.py."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from pcdet.engine.optim import OptimizationConfig, build_optimizer, build_scheduler, parameter_groups
from pcdet.registry import ConfigError, parse_node

NODE = {"BATCH_SIZE_PER_GPU": 4, "NUM_EPOCHS": 4, "OPTIMIZER": "sgd", "LR": 0.1, "WEIGHT_DECAY": 0.01}


class Container(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(3))
        self.conv, self.norm, self.frozen = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(1, 1)
        self.frozen.requires_grad_(False)
        self.again = self.conv


def learning_rates(node, iters, epochs):
    optimizer = build_optimizer(nn.Linear(1, 1), node)
    scheduler = build_scheduler(optimizer, iters, epochs, -1, node)
    values = []
    for it in range(iters * epochs):
        scheduler.step(it)
        values.append(scheduler.lr)
    return values


def test_parameters_owned_by_a_container_are_optimised_too_and_shared_ones_once():
    model = Container()
    plain, norm = (group["params"] for group in parameter_groups(model))
    assert [id(p) for p in plain] == [id(model.temperature), id(model.conv.weight), id(model.conv.bias)]
    assert [id(p) for p in norm] == [id(model.norm.weight), id(model.norm.bias)]


@pytest.mark.parametrize("name, kind", [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_step_decay_drops_at_the_listed_epochs_and_stops_at_the_clip(name, kind):
    node = {**NODE, "OPTIMIZER": name, "DECAY_STEP_LIST": [1, 3], "LR_DECAY": 0.1, "LR_CLIP": 0.005}
    assert isinstance(build_optimizer(nn.Linear(1, 1), node), kind)
    lr = learning_rates(node, 5, 4)
    assert lr[:5] == [0.1] * 5
    assert lr[5:15] == pytest.approx([0.01] * 10)
    assert lr[15:] == [0.005] * 5  # 0.001 would be below the clip


def test_warm_up_is_a_cosine_from_lr_over_div_factor():
    lr = learning_rates({**NODE, "LR_WARMUP": True, "WARMUP_EPOCH": 2, "DIV_FACTOR": 10}, 5, 4)
    expected = [0.01 + (0.1 - 0.01) * (1 - math.cos(math.pi * t / 10)) / 2 for t in range(10)]
    assert lr[:10] == pytest.approx(expected)
    assert lr[10:] == [0.1] * 10


def test_cosine_annealing_warms_up_by_iterations_and_falls_by_epochs():
    node = {**NODE, "OPTIMIZER": "adam_cosineanneal", "WARMUP_ITER": 4, "NUM_EPOCHS": 10}
    lr = learning_rates(node, 2, 10)
    assert lr[0] == pytest.approx(0.1 / 3)
    assert lr[2] == pytest.approx(0.1 * (0.5 / 3 + 0.5))
    assert lr[10] == lr[11] == pytest.approx(0.0001 + (0.1 - 0.0001) / 2)
    assert lr[-1] == pytest.approx(0.0001 + (0.1 - 0.0001) / 2 * (1 + math.cos(math.pi * 0.9)))


def test_onecycle_stays_at_its_ends_beyond_them():
    lr = learning_rates({**NODE, "OPTIMIZER": "adam_onecycle", "PCT_START": 0.0}, 3, 1)
    assert lr[0] == 0.1
    optimizer = build_optimizer(nn.Linear(1, 1), {**NODE, "OPTIMIZER": "adam_onecycle"})
    scheduler = build_scheduler(optimizer, 5, 2, -1, {**NODE, "OPTIMIZER": "adam_onecycle"})
    scheduler.step(1000)
    assert scheduler.lr == pytest.approx(0.1 / 10 / 1e4)
    assert optimizer.param_groups[0]["betas"][0] == pytest.approx(0.95)


def test_a_resumed_scheduler_stands_where_it_was():
    node = {**NODE, "OPTIMIZER": "adam_onecycle"}
    first = build_scheduler(build_optimizer(nn.Linear(1, 1), node), 5, 4, -1, node)
    first.step(7)
    second = build_scheduler(build_optimizer(nn.Linear(1, 1), node), 5, 4, -1, node)
    second.load_state_dict(first.state_dict())
    assert second.lr == first.lr and second.last_iter == 7
    assert build_scheduler(build_optimizer(nn.Linear(1, 1), node), 5, 4, 2, node).last_iter == 10


def test_values_in_the_groups_are_plain_floats():
    node = {**NODE, "OPTIMIZER": "adam_onecycle", "LR": 1}
    optimizer = build_optimizer(nn.Linear(1, 1), node)
    build_scheduler(optimizer, 5, 4, -1, node)
    for group in optimizer.param_groups:
        assert type(group["lr"]) is float and all(type(beta) is float for beta in group["betas"])


def test_all_mistakes_of_the_block_are_reported_with_their_paths():
    with pytest.raises(ConfigError) as error:
        parse_node({**NODE, "LR": -1.0, "PCT_START": 2, "GRAD_NORM_CLIP": 0}, OptimizationConfig, path="OPTIMIZATION")
    assert [p.split(":")[0] for p in error.value.problems] == [
        "OPTIMIZATION.LR",
        "OPTIMIZATION.PCT_START",
        "OPTIMIZATION.GRAD_NORM_CLIP",
    ]


def test_an_unknown_optimizer_names_the_nearest():
    with pytest.raises(ConfigError, match=r"OPTIMIZATION.OPTIMIZER: .*did you mean adam_onecycle\?"):
        build_optimizer(nn.Linear(1, 1), {**NODE, "OPTIMIZER": "adam_one_cycle"})


WITHOUT_THE_COMPILER = """
import sys, torch
from torch import nn
from pcdet.engine.optim import build_optimizer
model = nn.Linear(3, 2)
for name in ("adam_onecycle", "adam", "sgd"):
    optimizer = build_optimizer(model, {"BATCH_SIZE_PER_GPU": 4, "NUM_EPOCHS": 4, "OPTIMIZER": name, "LR": 0.1})
    optimizer.zero_grad()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def test_no_optimizer_loads_the_compiler(repo_root):
    """It costs each training 2.2 s before its first step."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_COMPILER], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "torch._dynamo was imported"


@pytest.mark.parametrize(
    ("name", "keys", "torchs", "options"),
    [
        ("adam_onecycle", {}, torch.optim.AdamW, {"betas": (0.9, 0.99)}),
        ("adam", {}, torch.optim.Adam, {}),
        ("sgd", {"MOMENTUM": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_steps_are_the_bits_of_torchs_own_optimizer(name, keys, torchs, options):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 1))
    theirs = copy.deepcopy(ours)
    first = build_optimizer(ours, {**NODE, "OPTIMIZER": name, "LR": 0.02, **keys})
    second = torchs(theirs.parameters(), lr=0.02, weight_decay=NODE["WEIGHT_DECAY"], fused=True, **options)
    for _ in range(5):
        x = torch.randn(11, 5)
        for model, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        first.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert torch.is_grad_enabled()
