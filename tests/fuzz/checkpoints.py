"""Targets: checkpoint files, zip and legacy."""

from __future__ import annotations

import collections
import io
import pickle
import random
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from fuzz.pickles import GLOBALS, TOKENS, require_plain
from fuzz.programs import program
from fuzz.target import Target
from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint
from pcdet.utils.safetensors_io import write_safetensors

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.complex64)
WORDS = (
    *(b"torch._utils\n_rebuild_tensor_v2\n", b"torch\nFloatStorage\n", b"torch\nLongStorage\n", b"torch\nstorage\n"),
    *(b"ctorch\nfloat32\n", b"ctorch\nSize\n", b"ctorch._utils\n_rebuild_parameter\n", b"cnumpy\ndtype\n", b"cpu"),
    *(b"cuda:0", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"archive/data.pkl", b"archive/data/0", b"byteorder"),
)
NAMES = (
    *GLOBALS,
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch FloatStorage", "torch float32"),
    *("torch Size", "torch Tensor", "torch device", "numpy.dtypes Float64DType", "numpy.dtypes ObjectDType"),
    *("numpy.dtypes StrDType", "numpy.dtypes VoidDType", "numpy.core.multiarray _reconstruct", "numpy dtype"),
)


def state(shape=(2, 3)) -> dict[str, Any]:
    """What a checkpoint of a training holds, small."""
    weight = torch.arange(float(np.prod(shape))).view(*shape)
    model = collections.OrderedDict(weight=weight, bias=weight.flatten()[1:], count=torch.tensor(3))
    optimizer = {"state": {0: {"step": 1, "exp_avg": weight.clone()}}, "param_groups": [{"lr": np.float64(0.003)}]}
    return {"epoch": 1, "it": 10, "model_state": model, "optimizer_state": optimizer, "version": "pcdet"}


def saved(content: Any, zipped: bool = True) -> bytes:
    """A checkpoint file."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def safetensors_file() -> bytes:
    """The weights of ``state`` as safetensors."""
    with tempfile.TemporaryDirectory() as folder:
        return write_safetensors(Path(folder) / "a.safetensors", state()["model_state"], {"epoch": 1}).read_bytes()


def _structure(zipped: bool):
    def tensor(spec):
        dtype, shape, transposed = spec
        made = torch.zeros(shape, dtype=dtype)
        return made.mT if transposed and made.dim() > 1 else made

    shapes = st.lists(st.integers(0, 3), max_size=3)
    tensors = st.tuples(st.sampled_from(DTYPES), shapes, st.booleans()).map(tensor)
    leaf = st.one_of(
        tensors, tensors, st.integers(), st.floats(), st.text(max_size=4), st.none(), st.binary(max_size=4)
    )
    trees = st.recursive(leaf, lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.lists(inner))
    return trees.map(lambda tree: saved({"model_state": tree}, zipped))


def _zipped_program(rng: random.Random) -> bytes:
    """A checkpoint whose pickle is a random program, which may refer to one storage of 8 bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in {"data.pkl": program(rng, NAMES), "version": b"3\n", "data/0": bytes(8)}.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def _check(value: dict, path: Path) -> None:
    assert isinstance(value, dict), f"it holds a {type(value).__name__}"
    require_plain(_without_tensors(value))


def _without_tensors(value: Any, depth: int = 0) -> Any:
    """The same containers with None for every tensor, after its memory was touched."""
    assert depth < 200, "containers are nested too deeply to walk"
    if isinstance(value, torch.Tensor):
        assert type(value) in (torch.Tensor, torch.nn.Parameter), f"it holds a {type(value).__name__}"
        if value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized:
            assert value.numel() < 1 << 28, (
                f"a tensor of {value.numel()} elements comes of {value.untyped_storage().nbytes()} bytes"
            )
            value.clone()
        return None
    if isinstance(value, dict):
        return {_without_tensors(k, depth + 1): _without_tensors(v, depth + 1) for k, v in value.items()}
    if type(value) in (list, tuple, torch.Size):
        return [_without_tensors(v, depth + 1) for v in value]
    if type(value) in (torch.dtype, torch.device):
        return None
    return value


SHARED = {"folder": "checkpoints", "suffix": ".pth", "read": read_checkpoint, "refusals": (CheckpointError,)}
SHARED |= {
    "check": _check,
    "tokens": (*WORDS, *TOKENS),
    "modules": ("pcdet.utils.checkpoint_containers", "pcdet.utils.checkpoint_tensors", "pcdet.utils.pickle_scan"),
}
TARGETS = [
    Target(
        name="checkpoint_zip",
        seeds=lambda: [saved(state()), saved({"model_state": {}}), saved(state((1, 1)))],
        structure=lambda: _structure(zipped=True),
        draw=_zipped_program,
        **SHARED,
    ),
    Target(
        name="checkpoint_legacy",
        seeds=lambda: [
            saved(state(), zipped=False),
            saved({"model_state": {}}, zipped=False),
            pickle.dumps({"a": 1}, 2),
        ],
        structure=lambda: _structure(zipped=False),
        draw=lambda rng: program(rng, NAMES),
        **SHARED,
    ),
    Target(
        name="safetensors",
        seeds=lambda: [safetensors_file()],
        **SHARED
        | {
            "suffix": ".safetensors",
            "tokens": (b'{"', b'"dtype":"F32"', b'"BOOL"', b'"shape":[', b'"data_offsets":[', b"99999999999", b"}}"),
            "modules": ("pcdet.utils.safetensors_io",),
        },
    ),
]
