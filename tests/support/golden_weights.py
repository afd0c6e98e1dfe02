"""Weights that follow from names and shapes alone: the rule of the goldens' README."""

import zlib

import numpy as np
import torch

SMALL_GAIN = ("dense_head.", "point_head.box_layers.6.", "roi_head.reg_layers.7.")


def fill(model, salt):
    """The model with the goldens' weights."""
    state = model.state_dict()
    for name, value in state.items():
        if not value.is_floating_point():  # counters, and class ids that the constructor knows
            continue
        seed = zlib.crc32(f"{salt}:{name}".encode())
        drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(value.shape))
        state[name] = torch.from_numpy(_shaped(name, drawn).astype(np.float32))
    model.load_state_dict(state)
    return model


def assert_filled(state, data):
    """The weights are those of a file of the goldens, by names and sums."""
    assert list(state) == data["fill.names"].tolist()
    sums = np.array([float(v.double().sum()) for v in state.values()])
    np.testing.assert_allclose(sums, data["fill.sums"], rtol=1e-6, atol=1e-4)


def _shaped(name, n):
    if name.endswith("running_mean"):
        return 0.1 * n
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(n)
    if name.endswith("conv_cls.bias"):
        return -2.0 + 0.05 * n
    if name.endswith("bias"):
        return 0.05 * n
    if n.ndim == 1:
        return 1 + 0.1 * n
    gain = 0.5 if any(part in name for part in SMALL_GAIN) else 4.0 if n.ndim == 5 else 2.0
    return n * np.sqrt(gain / (n.size // n.shape[0]))
