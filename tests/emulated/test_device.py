"""The emulated device behaves as CUDA does where PyTorch's operators tell the two kinds of memory apart."""

import copy
import io

import pytest
import torch
from torch import nn

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("emulator")]


@pytest.mark.parametrize(
    "mixed",
    [
        lambda a, b: a + b,
        lambda a, b: b @ a,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: nn.functional.conv1d(a[None], b[:, :, None]),
        lambda a, b: a.index_select(0, torch.zeros(1, dtype=torch.int64)),
    ],
    ids=["add", "matmul", "cat", "where", "convolution", "index_select"],
)
def test_tensors_of_two_devices_are_refused(mixed, gpu):
    with pytest.raises(RuntimeError, match="at least two devices, (emulated:0 and cpu|cpu and emulated:0)!"):
        mixed(torch.ones(3, 3, device=gpu), torch.ones(3, 3))


def test_a_cpu_tensor_without_dimensions_counts_as_a_number(gpu):
    x = torch.ones(3, device=gpu)
    assert (x * torch.tensor(2.0)).tolist() == [2, 2, 2]
    assert torch.where(x > 0, torch.tensor(5.0), x).tolist() == [5, 5, 5]
    with pytest.raises(RuntimeError, match="at least two devices"):
        x * torch.ones(1)


def test_memory_that_nobody_wrote_is_nan_or_minus_one(gpu):
    assert torch.empty(5, device=gpu).isnan().all()
    assert torch.empty(5, dtype=torch.int64, device=gpu).tolist() == [-1] * 5


def test_views_share_their_memory_and_copies_do_not(gpu):
    x = torch.arange(12.0, device=gpu)
    rows = x.view(3, 4)
    rows.t()[1, 2] = -1
    x.unfold(0, 3, 3)[0, 0] = -2
    assert x.tolist() == [-2, 1, 2, 3, 4, 5, 6, 7, 8, -1, 10, 11]
    rows.clone()[0] = 0
    assert x[0].item() == -2
    assert rows.t().stride() == (1, 4)


def test_a_result_may_grow_a_tensor_that_it_is_put_into(gpu):
    out = torch.empty(0, device=gpu)
    result = torch.add(torch.ones(4, 5, device=gpu), 1, out=out)
    assert result is out and out.shape == (4, 5)
    assert out.sum().item() == 40
    assert out.resize_(2).tolist() == [2, 2]


def test_an_operator_of_pcdet_without_a_cuda_kernel_says_so(gpu):
    library = torch.library.Library("pcdet", "FRAGMENT")
    library.define("emulated_test_op(Tensor x) -> Tensor")
    library.impl("emulated_test_op", lambda x: x + 1, "CPU")
    assert torch.ops.pcdet.emulated_test_op(torch.ones(1)).item() == 2
    with pytest.raises(NotImplementedError, match="pcdet::emulated_test_op has no CUDA kernel"):
        torch.ops.pcdet.emulated_test_op(torch.ones(1, device=gpu))
    library._destroy()


def test_the_generator_is_the_devices_own(gpu):
    torch.manual_seed(3)
    first, of_cpu = torch.rand(4, device=gpu), torch.rand(4)
    state = torch.get_device_module(gpu).get_rng_state()
    second = torch.rand(4, device=gpu)
    assert torch.equal(first.cpu(), of_cpu) and not torch.equal(first, second)
    torch.get_device_module(gpu).set_rng_state(state)
    assert torch.equal(torch.rand(4, device=gpu), second)
    own = torch.Generator(gpu).manual_seed(3)
    assert torch.equal(torch.rand(4, device=gpu, generator=own), first)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(4, device=gpu, generator=torch.Generator())


def test_networks_are_copied_saved_and_loaded(gpu):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(gpu)
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    for where, expected in ((None, gpu), ("cpu", torch.device("cpu"))):
        stream.seek(0)
        state = torch.load(stream, map_location=where, weights_only=True)
        assert {value.device for value in state.values()} == {expected}
        assert torch.equal(state["0.weight"].cpu(), model[0].weight.detach().cpu())
    assert {p.device for p in copy.deepcopy(model).parameters()} == {gpu}


def test_gradients_of_a_network_are_those_of_its_formula(gpu):
    x = (
        torch.randn(2, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        .to(gpu)
        .requires_grad_()
    )
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Softplus(), nn.ConvTranspose2d(3, 1, 2))
    assert torch.autograd.gradcheck(model.double().to(gpu), x)


@pytest.mark.parametrize(
    ("operation", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.ones(3).to(x.device), 1),
        (lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True), 0),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x[[0]], 1),
        (lambda x: x[(x > 0).nonzero()[:, 0]], 1),
        (lambda x: x.masked_fill(x > 0, 1), 0),
        (lambda x: torch.unique(x), 1),
        (lambda x: torch.repeat_interleave(x.long()), 1),
        (lambda x: torch.repeat_interleave(x.long(), output_size=3), 0),
        (lambda x: x.repeat_interleave(2), 0),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: torch.zeros(3, device=x.device), 0),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), 1),
        (lambda x: bool((x > 0).any()), 1),
        (lambda x: x.sort()[0].cumsum(0).topk(2), 0),
    ],
)
def test_an_operation_makes_the_host_wait_as_often_as_on_cuda(operation, waits, gpu, emulator):
    x = torch.ones(3, device=gpu)
    with emulator.waits() as events:
        operation(x)
    assert len(events.waits) == waits, events.table()


def test_a_wait_names_the_line_that_asked(gpu, emulator):
    with emulator.waits() as events:
        torch.ones(2, device=gpu).sum().item()
    assert [event.line.split()[-1] for event in events] == ["test_a_wait_names_the_line_that_asked"]
    assert events[0].line.startswith("tests/emulated/test_device.py:")
