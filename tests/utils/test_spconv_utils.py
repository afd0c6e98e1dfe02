"""Sparse convolutions on a CPU: right with several threads, in every precision, and absent without an accident."""

import contextlib
import ctypes
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from pcdet.utils import spconv_utils

pytest.importorskip("spconv", reason="spconv is not installed")
SHAPE = [8, 32, 32]
RUNS = 3


@pytest.fixture
def spconv():
    return spconv_utils.load_spconv()


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads():
    with threads(2):
        yield


def _sites(seed=0, count=3000):
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, n, (count,), generator=generator) for n in (2, *SHAPE)]
    return torch.unique(torch.stack(columns, 1), dim=0).int()


def _at(dense, indices):
    """(M, C) rows of a map (B, C, D, H, W)."""
    frame, z, y, x = indices.long().unbind(1)
    return dense[frame, :, z, y, x]


def _volume(features, indices, shape):
    dense = features.new_zeros(2, *shape, features.shape[1])
    dense = dense.index_put(tuple(indices.long().unbind(1)), features)
    return dense.permute(0, 4, 1, 2, 3)


def _dense_weight(layer):
    return layer.weight.detach().double().permute(0, 4, 1, 2, 3).requires_grad_()


class SubM:
    def layers(self, spconv):
        return [spconv.SubMConv3d(16, 24, 3, bias=False, indice_key="a")]

    def dense(self, x, weights):
        return F.conv3d(x, weights[0], padding=1)


class Strided:
    def layers(self, spconv):
        return [spconv.SparseConv3d(16, 24, 3, stride=2, padding=(0, 1, 1), bias=False, indice_key="b")]

    def dense(self, x, weights):
        return F.conv3d(x, weights[0], stride=2, padding=(0, 1, 1))


class Inverse:
    def layers(self, spconv):
        down = spconv.SparseConv3d(16, 24, 3, stride=2, padding=1, bias=False, indice_key="b")
        return [down, spconv.SparseInverseConv3d(24, 8, 3, bias=False, indice_key="b")]

    def dense(self, x, weights):
        middle = F.conv3d(x, weights[0], stride=2, padding=1)
        return F.conv_transpose3d(middle, weights[1].transpose(0, 1), stride=2, padding=1, output_padding=1)


def _sparse_run(spconv, layers, features, indices):
    """Output sites, output, and the gradients of the input and of all weights, for one fixed upstream gradient."""
    features = features.clone().requires_grad_()
    out = spconv.SparseConvTensor(features, indices, SHAPE, 2)
    for layer in layers:
        out = layer(out)
    upstream = torch.cos(torch.arange(out.features.numel(), dtype=torch.float32)).view_as(out.features)
    gradients = torch.autograd.grad(out.features, [features, *(layer.weight for layer in layers)], upstream)
    return out.indices, [out.features.detach(), *gradients], upstream


def _dense_run(kind, layers, features, indices, places, upstream):
    features = features.double().requires_grad_()
    weights = [_dense_weight(layer) for layer in layers]
    out = _at(kind.dense(_volume(features, indices, SHAPE), weights), places)
    gradients = torch.autograd.grad(out, [features, *weights], upstream.double())
    return [out.detach(), gradients[0], *(g.permute(0, 2, 3, 4, 1) for g in gradients[1:])]


@pytest.mark.parametrize("kind", [SubM(), Strided(), Inverse()], ids=lambda k: type(k).__name__)
def test_two_threads_give_dense_convolutions_numbers_every_time(spconv, two_threads, kind):
    torch.manual_seed(0)
    layers, indices = kind.layers(spconv), _sites()
    features = torch.randn(len(indices), 16)
    places, first, upstream = _sparse_run(spconv, layers, features, indices)
    with threads(1):  # not what is tested, and slow where the cores are taken
        dense = _dense_run(kind, layers, features, indices, places, upstream)
    for own, expected in zip(first, dense, strict=True):
        assert (own - expected).abs().max() <= 2e-5 * expected.abs().max()
    for _ in range(RUNS):
        again_at, again, _ = _sparse_run(spconv, layers, features, indices)
        assert torch.equal(again_at, places)
        assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))


def test_a_thread_of_its_own_is_limited_too(spconv, two_threads):
    torch.manual_seed(0)
    layers, indices = Inverse().layers(spconv), _sites()
    features = torch.randn(len(indices), 16)
    _, first, _ = _sparse_run(spconv, layers, features, indices)
    results = []
    for _ in range(RUNS):
        thread = threading.Thread(target=lambda: results.append(_sparse_run(spconv, layers, features, indices)[1]))
        thread.start()
        thread.join()
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, first, strict=True))


def test_the_limit_ends_with_the_call(spconv, two_threads):
    layer, indices = SubM().layers(spconv)[0], _sites(count=50)
    layer(spconv.SparseConvTensor(torch.randn(len(indices), 16), indices, SHAPE, 2))
    assert torch.get_num_threads() == 2
    openmp = ctypes.CDLL(None)
    if hasattr(openmp, "omp_get_max_threads"):
        assert openmp.omp_get_max_threads() == 2


def test_autocast_leaves_sparse_convolutions_in_float32(spconv):
    torch.manual_seed(0)
    layers, indices = Inverse().layers(spconv), _sites(count=500)
    features = torch.randn(len(indices), 16)
    _, plain, _ = _sparse_run(spconv, layers, features, indices)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, cast, _ = _sparse_run(spconv, layers, features, indices)
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(spconv, dtype):
    torch.manual_seed(0)
    layer, indices = SubM().layers(spconv)[0].to(dtype), _sites(count=500)
    features = torch.randn(len(indices), 16).to(dtype)
    own = layer(spconv.SparseConvTensor(features, indices, SHAPE, 2)).features
    exact = layer.float()(spconv.SparseConvTensor(features.float(), indices, SHAPE, 2)).features
    assert own.dtype == dtype and torch.equal(own, exact.to(dtype))


def test_a_convolution_of_a_single_cell_is_computed_in_float32_too(spconv):
    torch.manual_seed(0)
    layer, indices = spconv.SubMConv3d(16, 24, 1), _sites(count=50)
    features = torch.randn(len(indices), 16)
    expected = (features.double() @ layer.weight.double().reshape(16, 24) + layer.bias.double()).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(spconv.SparseConvTensor(features, indices, SHAPE, 2)).features
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)
    half = layer(spconv.SparseConvTensor(features.bfloat16(), indices, SHAPE, 2)).features
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=2e-2, atol=2e-2)


def test_a_bias_counts_in_evaluation_as_in_training(spconv):
    layer, indices = spconv.SubMConv3d(4, 8, 3, bias=True), _sites(count=300)
    torch.nn.init.normal_(layer.bias)
    x = spconv.SparseConvTensor(torch.randn(len(indices), 4), indices, SHAPE, 2)
    assert torch.equal(layer.train()(x).features, layer.eval()(x).features)


def test_layers_of_a_cuda_build_run_on_the_cpu(spconv):
    torch.manual_seed(0)
    layers, indices = Inverse().layers(spconv), _sites(count=300)
    features = torch.randn(len(indices), 16)
    _, native, _ = _sparse_run(spconv, layers, features, indices)
    for layer in layers:
        layer.algo = spconv.ops.ConvAlgo.MaskImplicitGemm  # what those builds choose
    _, own, _ = _sparse_run(spconv, layers, features, indices)
    assert all(torch.equal(a, b) for a, b in zip(own, native, strict=True))
    assert all(layer.algo == spconv.ops.ConvAlgo.MaskImplicitGemm for layer in layers)


def test_no_rows_give_no_rows(spconv):
    features = torch.zeros(0, 16, requires_grad=True)
    x = spconv.SparseConvTensor(features, torch.zeros(0, 4, dtype=torch.int32), SHAPE, 2)
    out = Strided().layers(spconv)[0](x)
    out.features.sum().backward()
    assert out.features.shape == (0, 24) and features.grad.shape == (0, 16)


def test_correcting_twice_changes_nothing(spconv):
    layer = spconv.conv.SparseConvolution
    before, forward = dict(vars(spconv.ops)), layer.forward
    spconv_utils._correct_cpu(spconv.ops)
    spconv_utils._correct_forward(layer, spconv.ops.ConvAlgo.Native)
    assert dict(vars(spconv.ops)) == before and layer.forward is forward
    assert spconv_utils.spconv is spconv, "OpenPCDet's import"


def test_cuda_tensors_and_streams_reach_spconv_untouched():
    calls = []
    on_gpu = SimpleNamespace(is_cuda=True)

    def original(*args, **kwargs):
        calls.append((args, kwargs))
        return "result"

    def forbidden():
        raise AssertionError("threads were limited")

    for wrap in (spconv_utils._on_cpu, spconv_utils._convolve_backward_on_cpu):
        assert wrap(original, forbidden)(on_gpu, 1, 2, algo=3) == "result"
    assert spconv_utils._convolve_on_cpu(original, forbidden)(on_gpu, 1, 2, 3, 4, True, bias=5) == "result"
    assert calls == [((on_gpu, 1, 2), {"algo": 3})] * 2 + [((on_gpu, 1, 2, 3, 4, True), {"bias": 5})]
    assert spconv_utils._no_stream_on_cpu(lambda: 7, forbidden)() == 7


def test_names_of_sparse_weights(spconv):
    model = torch.nn.ModuleDict({"a": SubM().layers(spconv)[0], "b": torch.nn.Conv3d(3, 3, 3)})
    assert spconv_utils.find_all_spconv_keys(model) == {"a.weight"}
    assert spconv_utils.find_all_spconv_keys(model, "net") == {"net.a.weight"}
    assert spconv_utils.find_all_spconv_keys(model["a"]) == {"weight"}


WITHOUT = """
import sys
sys.modules["spconv"] = None
import pcdet.models, pcdet.models.detectors, pcdet.models.dense_heads
from pcdet.models.backbones_3d import VoxelBackBone8x
try:
    VoxelBackBone8x(input_channels=4, grid_size=[16, 16, 40])
except ImportError as error:
    print(error)
"""


def test_without_spconv_all_imports_and_the_error_says_what_to_install(repo_root):
    run = subprocess.run([sys.executable, "-c", WITHOUT], cwd=repo_root, capture_output=True, text=True, check=True)
    assert "needs spconv" in run.stdout and "install spconv==2.3.8" in run.stdout and "docs/INSTALL.md" in run.stdout


def test_spconv_is_imported_in_one_place(repo_root):
    importing = [
        path.relative_to(repo_root).as_posix()
        for path in (repo_root / "pcdet").rglob("*.py")
        if any(line.strip().startswith(("import spconv", "from spconv")) for line in path.read_text().splitlines())
    ]
    assert importing == ["pcdet/utils/spconv_utils.py"]
