"""Times PointRCNN's evaluation of one frame, as a whole and part by part, with one thread and with two.

    python tools/benchmarks/bm_pointrcnn.py [--device cpu] [--repeats 9] [--threads 2] [--json FILE]

The network of kitti_models/pointrcnn.yaml with random weights, on a simulated frame of 16,384 points. "at once" refines
all proposals in one go, as OpenPCDet does. With ``--threads N`` the second round has N threads.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from _benchmark import OURS, REPO_ROOT, Benchmark

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.processor.steps import CountByMode, SamplePoints
from pcdet.datasets.simulated.frame import make_frame
from pcdet.models import build_network
from pcdet.utils.common_utils import mask_points_by_range

POINTS = 16384


def make_batch(limits: np.ndarray, device: torch.device) -> dict:
    """One simulated frame as the loader hands it over."""
    points = make_frame(0, 0).scan.points
    points = points[mask_points_by_range(points, limits)]
    sampler = SamplePoints(num_points=CountByMode(train=POINTS, test=POINTS), training=False)
    points = sampler({"points": points}, np.random.default_rng(0))["points"]
    points = torch.nn.functional.pad(torch.from_numpy(points).float(), (1, 0))
    return {"points": points.to(device), "batch_size": 1}


def make_model(cfg: dict, device: torch.device) -> torch.nn.Module:
    """The detector, untrained."""
    facts = SimpleNamespace(
        class_names=cfg["CLASS_NAMES"],
        point_cloud_range=cfg["DATA_CONFIG"]["POINT_CLOUD_RANGE"],
        voxel_size=None,
        grid_size=None,
        point_feature_encoder=SimpleNamespace(num_point_features=4),
    )
    torch.manual_seed(0)
    return build_network(cfg["MODEL"], len(facts.class_names), facts).eval().to(device)


def run(benchmark: Benchmark, model: torch.nn.Module, batch: dict, label: str) -> None:
    """The whole detector, then its parts on what the parts before them give."""
    benchmark.run(f"evaluation of {POINTS} points, {label}", {OURS: lambda: model(dict(batch))})
    described = model.backbone_3d(dict(batch))
    first = model.point_head(dict(described))
    proposed = model.roi_head.proposal_layer(dict(first))
    pooled = model.roi_head.pool(proposed)
    refined = model.roi_head(dict(proposed))
    parts = {
        "backbone": lambda: model.backbone_3d(dict(batch)),
        "point head": lambda: model.point_head(dict(described)),
        "proposals": lambda: model.roi_head.proposal_layer(dict(first)),
        "pooling": lambda: model.roi_head.pool(proposed),
        "final boxes": lambda: model.post_processing(dict(refined)),
    }
    for name, call in parts.items():
        benchmark.run(f"{name}, {label}", {OURS: call})
    benchmark.run(
        f"features of {len(pooled)} proposals, {label}",
        {OURS: lambda: model.roi_head._features(pooled), "at once": lambda: model.roi_head._describe(pooled)},
        lambda a, b: f"within {float((a - b).abs().max() / b.abs().max()):.0e}",
    )


@torch.no_grad()
def main() -> None:
    benchmark = Benchmark(__doc__)
    threads = torch.get_num_threads()
    cfg = cfg_from_yaml_file(REPO_ROOT / "tools/cfgs/kitti_models/pointrcnn.yaml", {})
    batch = make_batch(np.array(cfg["DATA_CONFIG"]["POINT_CLOUD_RANGE"]), benchmark.device)
    model = make_model(cfg, benchmark.device)
    for count in (1, max(threads, 2)) if benchmark.device.type == "cpu" else (threads,):
        torch.set_num_threads(count)
        run(benchmark, model, batch, f"{count} thread{'s' * (count > 1)}")
    benchmark.finish()


if __name__ == "__main__":
    main()
