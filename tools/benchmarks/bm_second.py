"""Times SECOND at KITTI size: its sparse backbone against spconv's chain of the same layers, and the whole detector.

    python tools/benchmarks/bm_second.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

One cloud of 20,000 points on the grid of kitti_models/second.yaml. "spconv itself" is a ``spconv.SparseSequential`` of
the same modules without pcdet's corrections, under one thread, where it is right on a CPU too.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from types import SimpleNamespace

import torch
from _benchmark import OURS, REPO_ROOT, Benchmark

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.ops.voxel.voxel_utils import voxelize
from pcdet.testing import random_boxes, random_cloud
from pcdet.utils.spconv_utils import PATCHED, load_spconv

POINTS, OBJECTS = 20000, 16
LIMITS, VOXEL, SLOTS, VOXELS = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1), 5, 40000


def make_batch(device: torch.device) -> dict:
    """One frame as the loader hands it over."""
    voxels, coords, count = voxelize(random_cloud(POINTS), VOXEL, LIMITS, SLOTS, VOXELS)
    boxes = random_boxes(OBJECTS, extent=30, seed=9)
    boxes[:, 0] += 35
    labels = torch.arange(OBJECTS)[:, None] % 3 + 1.0
    parts = {
        "voxels": voxels,
        "voxel_coords": torch.nn.functional.pad(coords, (1, 0)),
        "voxel_num_points": count,
        "gt_boxes": torch.cat((boxes, labels), dim=1)[None],
    }
    return {**{key: value.float().to(device) for key, value in parts.items()}, "batch_size": 1}


def make_model(device: torch.device) -> torch.nn.Module:
    """The detector of kitti_models/second.yaml."""
    cfg = cfg_from_yaml_file(REPO_ROOT / "tools/cfgs/kitti_models/second.yaml", {})
    facts = SimpleNamespace(
        class_names=cfg["CLASS_NAMES"],
        point_cloud_range=LIMITS,
        voxel_size=VOXEL,
        grid_size=[1408, 1600, 40],
        point_feature_encoder=SimpleNamespace(num_point_features=4),
    )
    torch.manual_seed(0)
    return build_network(cfg["MODEL"], 3, facts).eval().to(device)


@contextlib.contextmanager
def uncorrected():
    """The library as it comes, under one thread."""
    ops, threads = load_spconv().ops, torch.get_num_threads()
    corrected = {name: f for name, f in vars(ops).items() if hasattr(f, PATCHED)}
    for name, function in corrected.items():
        setattr(ops, name, getattr(function, PATCHED))
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, function in corrected.items():
            setattr(ops, name, function)


def spconv_chain(backbone: torch.nn.Module, batch: dict):
    """A call that runs the backbone's layers as one plain chain."""
    spconv = load_spconv()
    chain = spconv.SparseSequential(*(layer for layer in backbone.modules() if not list(layer.children()))).eval()

    def call() -> torch.Tensor:
        with uncorrected(), torch.no_grad():
            indices = batch["voxel_coords"].int()
            return chain(spconv.SparseConvTensor(batch["voxel_features"], indices, backbone.sparse_shape, 1)).features

    return call


def sparse_part(benchmark: Benchmark, model: torch.nn.Module, batch: dict) -> None:
    """The sparse backbone alone."""
    given = model.vfe(dict(batch))

    @torch.no_grad()
    def ours() -> torch.Tensor:
        return model.backbone_3d(dict(given))["encoded_spconv_tensor"].features

    def same(a: torch.Tensor, b: torch.Tensor) -> str:
        return "equal" if torch.equal(a, b) else f"within {float((a - b).abs().max() / b.abs().max()):.0e}"

    benchmark.run(
        f"sparse backbone, forward: {POINTS} points, {len(given['voxel_coords'])} voxels",
        {OURS: ours, "spconv itself, one thread": spconv_chain(model.backbone_3d, given)},
        same,
    )


def whole(benchmark: Benchmark, model: torch.nn.Module, batch: dict) -> None:
    """The whole detector: evaluation and a training step."""
    last = copy.deepcopy(model)
    last.backbone_2d.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def evaluate(model: torch.nn.Module, bf16: bool = False) -> None:
        with torch.autocast(benchmark.device.type, dtype=torch.bfloat16, enabled=bf16):
            model(dict(batch))

    benchmark.run(
        "detector, evaluation of 1 frame",
        {
            OURS: lambda: evaluate(model),
            "channels last": lambda: evaluate(last),
            "channels last, bfloat16": lambda: evaluate(last, True),
        },
    )

    def train(model: torch.nn.Module) -> None:
        ret_dict, _, _ = model.train()(dict(batch))
        ret_dict["loss"].backward()

    benchmark.run("detector, training step of 1 frame", {OURS: lambda: train(model)})


def main() -> None:
    benchmark = Benchmark(__doc__, versions=("spconv",))
    try:
        load_spconv()
    except ImportError as error:
        sys.exit(str(error))
    model, batch = make_model(benchmark.device), make_batch(benchmark.device)
    sparse_part(benchmark, model, batch)
    whole(benchmark, model, batch)
    benchmark.finish()


if __name__ == "__main__":
    main()
