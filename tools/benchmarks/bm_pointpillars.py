"""Times a training step of the quickstart's PointPillars, and its parts against their plain forms.

    python tools/benchmarks/bm_pointpillars.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Batches of four clouds of 18,000 points. "plain" is the form that OpenPCDet has: every slot of every pillar, every
anchor against every object, every anchor in the focal loss and the box loss, every box decoded.
"""

from __future__ import annotations

import copy
import math

import torch
from _benchmark import OURS, REPO_ROOT, Benchmark
from _pillars import facts, pillar_batch
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.models.dense_heads.anchor_head_template import AnchorHeadTemplate
from pcdet.utils import box_utils, loss_utils

FRAMES, POINTS = 4, 18000
LIMITS, VOXEL = (0.0, -15.36, -3.0, 30.72, 15.36, 1.0), (0.32, 0.32, 4.0)


def make_model(width: int, stride: int, device: torch.device) -> torch.nn.Module:
    """The quickstart's network of a width and head stride."""
    cfg = EasyDict()
    cfg_from_yaml_file(str(REPO_ROOT / "tools/cfgs/simulated_models/pointpillar.yaml"), cfg)
    cfg.MODEL.WIDTH = width / cfg.MODEL.VFE.NUM_FILTERS[0]
    cfg.MODEL.BACKBONE_2D.LAYER_STRIDES = [stride, 2, 2]
    for entry in cfg.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        entry.feature_map_stride = stride
    torch.manual_seed(0)
    return build_network(cfg.MODEL, 3, facts(cfg.CLASS_NAMES, LIMITS, VOXEL)).train().to(device)


def training_step(model: torch.nn.Module, batch: dict, bf16: bool) -> None:
    """Forward, loss and backward."""
    device = batch["gt_boxes"].device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        ret_dict, _, _ = model(dict(batch))
    model.zero_grad()
    ret_dict["loss"].backward()


def steps(benchmark: Benchmark, batch: dict) -> None:
    """Whole steps in three precisions and formats."""
    for stride, width in ((2, 16), (2, 32), (1, 16), (1, 32)):
        plain = make_model(width, stride, benchmark.device)
        last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
        benchmark.run(
            f"training step of {FRAMES} frames, head at stride {stride}, width {width}",
            {
                OURS: lambda m=last: training_step(m, batch, True),
                "float32, channels last": lambda m=last: training_step(m, batch, False),
                "float32": lambda m=plain: training_step(m, batch, False),
            },
        )


def parts(benchmark: Benchmark, batch: dict) -> None:
    """The parts that have a fast form."""
    model = make_model(16, 1, benchmark.device).to(memory_format=torch.channels_last)
    head, vfe = model.dense_head, model.vfe
    gt_boxes, frames = batch["gt_boxes"], FRAMES

    def encode(slots: bool):
        count = batch["voxel_num_points"].long()
        form = vfe._forward_slots if slots else vfe._forward_points
        out = form(batch["voxels"], count, batch["voxel_coords"])
        out.sum().backward()
        return out.detach()

    def close(a, b):
        return f"max difference {(a - b).abs().max():.1e}"

    benchmark.run(
        f"pillar encoder, {len(batch['voxels'])} pillars, forward and backward",
        {OURS: lambda: encode(False), "plain": lambda: encode(True)},
        close,
    )

    def full_matrices():
        for boxes in gt_boxes:
            for label, anchors in enumerate(head.anchors, start=1):
                overlap = box_utils.boxes3d_nearest_bev_iou(anchors.reshape(-1, 7), boxes[boxes[:, 7] == label])
                overlap.max(dim=1)

    benchmark.run(
        f"targets of {frames} x {len(head.anchor_table)} anchors, 16 objects a frame",
        {OURS: lambda: head.assign_targets(gt_boxes), "plain, overlaps alone": full_matrices},
    )
    losses(benchmark, model, batch, close)


def losses(benchmark: Benchmark, model: torch.nn.Module, batch: dict, close) -> None:
    """Focal loss and head, then boxes in evaluation."""
    head = model.dense_head
    with torch.autocast(benchmark.device.type, dtype=torch.bfloat16):
        model(dict(batch))
    labels = head.forward_ret_dict["box_cls_labels"]
    logits = head.forward_ret_dict["cls_preds"].detach().float().view(FRAMES, -1, 3).requires_grad_()
    weights = torch.full((FRAMES,), 0.1, device=benchmark.device)

    def plain_focal():
        target = torch.nn.functional.one_hot(labels.clamp(min=0).long(), 4)[..., 1:].float()
        each = loss_utils.SigmoidFocalClassificationLoss()(logits, target, (labels >= 0) * weights[:, None])
        each.sum().backward()
        return each.sum().detach()

    def fast_focal():
        total = loss_utils.sigmoid_focal_sum(logits, labels, weights)
        total.backward()
        return total.detach()

    benchmark.run("focal loss, forward and backward", {OURS: fast_focal, "plain": plain_focal}, close)

    features = head.forward_ret_dict["spatial_features_2d"].detach().requires_grad_()

    def run_head(everywhere: bool):
        head.predictions_at = (
            (lambda rows: AnchorHeadTemplate.predictions_at(head, rows))
            if everywhere
            else type(head).predictions_at.__get__(head)
        )
        with torch.autocast(benchmark.device.type, dtype=torch.bfloat16):
            head({"spatial_features_2d": features, "gt_boxes": batch["gt_boxes"]})
            loss, _ = head.get_loss()
        loss.backward()
        return loss.detach()

    benchmark.run(
        "head, targets and loss, forward and backward",
        {OURS: lambda: run_head(False), "plain box loss": lambda: run_head(True)},
        close,
    )
    evaluation(benchmark, model, batch)


def evaluation(benchmark: Benchmark, model: torch.nn.Module, batch: dict) -> None:
    """Boxes of the few anchors that count, against those of all."""
    model.eval()
    model.dense_head.conv_cls.bias.data.fill_(-math.log(99))
    with torch.no_grad():
        benchmark.run(
            "evaluation of 4 frames",
            {
                OURS: lambda: model(dict(batch)),
                "plain": lambda: model.post_processing(model.forward_features(dict(batch))),
            },
        )


if __name__ == "__main__":
    benchmark = Benchmark(__doc__)
    batch = pillar_batch(FRAMES, POINTS, LIMITS, VOXEL, benchmark.device)
    steps(benchmark, batch)
    parts(benchmark, batch)
    benchmark.finish()
