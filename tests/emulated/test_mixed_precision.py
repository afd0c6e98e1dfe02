"""Mixed precision, synchronised batch norms and compiled networks on the GPU, or the emulated device."""

import copy

import pytest
import torch
import trainings
from torch import nn

from pcdet.engine.precision import Precision

pytestmark = pytest.mark.gpu

SMALLEST_HALF = 2.0**-24


def half(gpu, **keys):
    return Precision.choose(gpu, True, dtype="fp16", **keys)


def slope_of(loss_of, precision, gpu):
    """The gradient of a weight after the precision's forward and backward pass, unscaled."""
    weight = nn.Parameter(torch.ones(4, 4, device=gpu))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), precision.grad_scaler()
    with precision.autocast():
        loss = loss_of(weight)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return weight.grad, scaler, optimizer, weight


def faint(weight):
    """A loss whose gradient passes a half-precision product at a sixteenth of the smallest half."""
    return (torch.ones(4, 4, device=weight.device) @ weight).float().sum() * (SMALLEST_HALF / 16)


def test_a_gradient_too_small_for_fp16_survives_by_the_scale_alone(gpu):
    with_scale, *_ = slope_of(faint, half(gpu), gpu)
    without, *_ = slope_of(faint, half(gpu, loss_scale=1.0), gpu)
    assert torch.equal(without, torch.zeros_like(without))
    assert torch.allclose(with_scale, torch.full_like(with_scale, 4 * SMALLEST_HALF / 16))


def test_an_overflow_skips_the_step_and_halves_the_scale(gpu):
    grad, scaler, optimizer, weight = slope_of(lambda w: w.sum() * 1e35, half(gpu, loss_scale=2.0**16), gpu)
    before = weight.detach().clone()
    assert not grad.isfinite().all()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(weight.detach(), before)
    assert scaler.get_scale() == 2.0**15


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_distilled_training_in_mixed_precision_follows_that_in_float32(dtype, gpu):
    model, batches = trainings.pointpillars_distilled(), trainings.pillar_batches(4)
    _, full = trainings.train(model, batches, gpu)
    trainer, mixed = trainings.train(model, batches, gpu, Precision.choose(gpu, True, dtype=dtype))
    assert mixed.losses == pytest.approx(full.losses, rel=0.05)  # eight bits of bf16, through some ten layers
    assert mixed.losses != full.losses
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_a_compiled_network_and_its_gradients_are_the_plain_ones(gpu):
    model = trainings.pointpillars_alone().to(gpu)
    plain, compiled = copy.deepcopy(model.backbone_2d).train(), copy.deepcopy(model.backbone_2d).train()
    forward = torch.compile(lambda x: compiled({"spatial_features": x})["spatial_features_2d"], backend="aot_eager")
    maps = torch.randn(2, 8, 32, 32, generator=torch.Generator().manual_seed(0)).to(gpu)
    expected, found = plain({"spatial_features": maps})["spatial_features_2d"], forward(maps)
    assert found.device.type == gpu.type
    torch.testing.assert_close(found, expected)
    expected.square().mean().backward()
    found.square().mean().backward()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad)


def test_the_parts_of_a_synchronised_norm_are_those_of_one_norm_over_all(gpu):
    """What two processes compute and gather, by the operators that SyncBatchNorm calls, against a plain norm."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 3, 5, generator=generator).to(gpu) for n in (2, 4)]
    norm = nn.BatchNorm1d(3).to(gpu)
    whole = torch.cat(parts).requires_grad_()
    expected = norm(whole)
    upstream = torch.randn(whole.shape, generator=generator).to(gpu)
    expected.backward(upstream)

    means, invstds = map(torch.stack, zip(*(torch.batch_norm_stats(part, norm.eps) for part in parts), strict=True))
    counts = torch.tensor([float(part.numel() // 3) for part in parts], device=gpu)
    running = [torch.zeros(3, device=gpu), torch.ones(3, device=gpu)]
    mean, invstd = torch.batch_norm_gather_stats_with_counts(parts[0], means, invstds, *running, 0.1, norm.eps, counts)
    affine = norm.weight.detach(), norm.bias.detach()
    found = torch.cat([torch.batch_norm_elemt(part, *affine, mean, invstd, norm.eps) for part in parts])
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(running[0], norm.running_mean)
    torch.testing.assert_close(running[1], norm.running_var)

    slopes = list(upstream.split([len(part) for part in parts]))
    sums = [
        torch.batch_norm_backward_reduce(slope, part, mean, invstd, affine[0], True, True, True)
        for slope, part in zip(slopes, parts, strict=True)
    ]
    sum_dy, sum_dy_xmu, grad_weight, grad_bias = (torch.stack(values).sum(0) for values in zip(*sums, strict=True))
    grads = [
        torch.batch_norm_backward_elemt(slope, part, mean, invstd, affine[0], sum_dy, sum_dy_xmu, counts.int())
        for slope, part in zip(slopes, parts, strict=True)
    ]
    torch.testing.assert_close(torch.cat(grads), whole.grad)
    torch.testing.assert_close(grad_weight, norm.weight.grad)
    torch.testing.assert_close(grad_bias, norm.bias.grad)
