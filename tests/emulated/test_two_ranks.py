"""Two processes on the GPU, or the emulated device, that share the statistics of batch norms and gradients."""

import pytest
import torch
from staged_group import StagedGroup
from support.gpu import gpu_or_none
from support.ranks import call_in_ranks
from torch import distributed as dist
from torch import nn

from pcdet.engine.runtime import parallelize

pytestmark = pytest.mark.gpu


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1))


def whole_batch():
    """Frames of another spread for each rank."""
    spread = torch.tensor([1.0, 1.0, 3.0, 5.0])[:, None, None, None]
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1)) * spread


def rank_main(rank, port, out):
    gpu = gpu_or_none()
    if gpu.type == "cuda":
        gpu = torch.device("cuda", rank)
        torch.cuda.set_device(gpu)
    else:
        StagedGroup.register(gpu.type)
    dist.init_process_group("nccl" if gpu.type == "cuda" else StagedGroup.NAME)
    model = parallelize(network().to(gpu), gpu, sync_bn=True)
    part = whole_batch().chunk(2)[rank].to(gpu)
    model(part).square().sum().backward()
    state = {name: p.grad.cpu() for name, p in model.module.named_parameters()}
    state |= {name: b.cpu() for name, b in model.module.named_buffers()}
    torch.save(state, f"{out}/{rank}.pth")
    dist.destroy_process_group()


def test_two_ranks_have_the_statistics_and_gradients_of_the_whole_batch(gpu, tmp_path):
    if gpu.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("two ranks need two cards")
    call_in_ranks(rank_main, str(tmp_path))
    model = network()
    model(whole_batch()).square().sum().backward()
    expected = {name: p.grad / 2 for name, p in model.named_parameters()} | dict(model.named_buffers())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=f"rank {rank}: {name}")
