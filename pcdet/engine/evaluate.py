"""Evaluates a detector on a loader's data set, by one process or several."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from pcdet.engine.checkpoint import unwrap
from pcdet.engine.loaders import like_loader
from pcdet.engine.precision import Precision
from pcdet.utils import commu_utils, safe_pickle
from pcdet.utils.common_utils import batch_to_device
from pcdet.utils.safe_files import WriteError, replacing
from pcdet.utils.transfer import on_host


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How to evaluate.

    Attributes:
        class_names: names of the labels 1, 2, ...
        recall_thresholds: overlaps at which recall is counted (``POST_PROCESSING.RECALL_THRESH_LIST``).
        eval_metric: handed to the data set (``POST_PROCESSING.EVAL_METRIC``).
        save_to_file: write one text file a frame to ``final_result/data``.
        infer_time: show and log the milliseconds of the forward pass.
        precision: mixed precision of the forward pass; off in OpenPCDet.
        progress: show a bar.
    """

    class_names: Sequence[str]
    recall_thresholds: Sequence[float] = ()
    eval_metric: str = "kitti"
    save_to_file: bool = False
    infer_time: bool = False
    precision: Precision = field(default_factory=Precision)
    progress: bool = True

    @classmethod
    def from_cfg(cls, cfg: Mapping, **options: Any) -> EvalSettings:
        """Settings of a full model configuration."""
        post = cfg["MODEL"].get("POST_PROCESSING") or {}
        return cls(
            class_names=list(cfg["CLASS_NAMES"]),
            recall_thresholds=list(post.get("RECALL_THRESH_LIST") or ()),
            eval_metric=post.get("EVAL_METRIC", "kitti"),
            **options,
        )


@dataclass
class _Part:
    """What one process has found: annotations by index in the data set, counts, and milliseconds a batch."""

    annos: dict[int, dict] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    forward_ms: list[float] = field(default_factory=list)


def prepare_evaluation(dataset: Dataset) -> None:
    """Lets a data set raise what would keep results from being evaluated; every process calls this."""
    if hasattr(dataset, "prepare_evaluation"):
        commu_utils.call_on_main(dataset.prepare_evaluation)


def eval_one_epoch(
    model: nn.Module,
    loader: DataLoader,
    settings: EvalSettings,
    *,
    epoch_id: int | str,
    result_dir: str | Path,
    device: torch.device | str = "cpu",
    logger: logging.Logger | None = None,
) -> dict[str, float]:
    """Detections and metrics of one set of weights over the whole data set.

    Every process calls this. Frames are dealt out by their index whatever the loader's sampler does, so each is seen
    once. Rank 0 writes ``result.pkl`` (the data set's annotations, one a frame, in order) to ``result_dir``.

    Args:
        model: a detector; in evaluation ``model(batch)`` returns (predictions, recall counts).
        loader: over a data set with ``generate_prediction_dicts``, ``evaluation`` and, where something can be wrong
            before there are results, ``prepare_evaluation``.
        settings: how to evaluate.
        epoch_id: for the log.
        result_dir: made if needed.
        device: where the model is.
        logger: gets OpenPCDet's lines.

    Returns:
        ``recall/roi_<t>``, ``recall/rcnn_<t>`` and the data set's own metrics on rank 0; empty on other ranks and where
        the data set is empty.
    """
    logger = logger or logging.getLogger("pcdet")
    result_dir, device, model = Path(result_dir), torch.device(device), unwrap(model)
    result_dir.mkdir(parents=True, exist_ok=True)
    text_dir = None
    if settings.save_to_file:
        text_dir = result_dir / "final_result" / "data"
        text_dir.mkdir(parents=True, exist_ok=True)
    logger.info(f"*************** EPOCH {epoch_id} EVALUATION *****************")
    prepare_evaluation(loader.dataset)
    started = time.perf_counter()
    was_training = model.training
    model.eval()
    part = _detect(model, loader, settings, text_dir, device, epoch_id)
    model.train(was_training)
    parts = commu_utils.gather_to_main(part)
    seconds = time.perf_counter() - started
    try:
        return _report(parts, loader.dataset, settings, epoch_id, result_dir, seconds, logger) if parts else {}
    finally:
        commu_utils.synchronize()


def _detect(model, loader, settings: EvalSettings, text_dir, device, epoch_id) -> _Part:
    """Runs this process's share of the frames."""
    part, dataset = _Part(), loader.dataset
    batches = _share_of_rank(loader)
    shown = tqdm(
        batches, desc=f"eval {epoch_id}", leave=False, dynamic_ncols=True,
        disable=not (settings.progress and commu_utils.is_main_process()),
    )  # fmt: skip
    for indices, batch in zip(_index_batches(batches), shown, strict=True):
        batch_to_device(batch, device)
        begun = _clock(device) if settings.infer_time else 0.0
        with torch.no_grad(), settings.precision.autocast():
            pred_dicts, recall = model(batch)
        if settings.infer_time:
            part.forward_ms.append(1e3 * (_clock(device) - begun))
            shown.set_postfix(infer_time=f"{part.forward_ms[-1]:.2f} ms", refresh=False)
        for key, value in recall.items():
            part.counts[key] = part.counts.get(key, 0) + value
        predictions, names = on_host(pred_dicts), list(settings.class_names)
        annos = dataset.generate_prediction_dicts(batch, predictions, names, output_path=text_dir)
        part.annos.update(zip(indices, annos, strict=True))
    return part


def _share_of_rank(loader: DataLoader) -> DataLoader:
    """A loader of every ``world_size``-th frame, from number ``rank`` on, in batches of the loader's size."""
    mine = range(commu_utils.get_rank(), len(loader.dataset), commu_utils.get_world_size())
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1
    return like_loader(loader, [list(mine[i : i + size]) for i in range(0, len(mine), size)])


def _index_batches(loader: DataLoader) -> Sequence[Sequence[int]]:
    return loader.batch_sampler


def _clock(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def _report(parts: list[_Part], dataset, settings, epoch_id, result_dir: Path, seconds: float, logger) -> dict:
    """Puts the processes' shares together, logs, writes ``result.pkl`` and asks the data set for its metrics."""
    by_index = {index: anno for part in parts for index, anno in part.annos.items()}
    annos = [by_index[index] for index in range(len(dataset))]
    counts = {key: sum(p.counts.get(key, 0) for p in parts) for key in sorted({k for p in parts for k in p.counts})}
    logger.info(f"*************** Performance of EPOCH {epoch_id} *****************")
    logger.info(f"Generate label finished(sec_per_example: {seconds / max(len(annos), 1):.4f} second).")
    times = [ms for part in parts for ms in part.forward_ms]
    if times:
        logger.info(f"Forward pass: median {sorted(times)[len(times) // 2]:.2f} ms a batch, {len(times)} batches")
    result = {}
    gt = counts.get("gt", 0)
    for threshold in settings.recall_thresholds:
        for stage in ("roi", "rcnn"):
            recall = float(counts.get(f"{stage}_{threshold}", 0)) / max(float(gt), 1.0)
            logger.info(f"recall_{stage}_{threshold}: {recall:f}")
            result[f"recall/{stage}_{threshold}"] = recall
    objects = sum(len(anno["name"]) for anno in annos)
    logger.info(f"Average predicted number of objects({len(annos)} samples): {objects / max(len(annos), 1):.3f}")
    _write_result(result_dir / "result.pkl", annos)
    if not annos:
        logger.warning("the data set has no samples, so there is nothing to evaluate")
        return {}
    text, metrics = dataset.evaluation(
        annos, list(settings.class_names), eval_metric=settings.eval_metric, output_path=result_dir / "final_result"
    )
    logger.info("The split has no labels, so there is no AP and the recall says nothing" if text is None else text)
    result.update(metrics or {})
    logger.info(f"Result is saved to {result_dir}")
    logger.info("****************Evaluation done.*****************")
    return result


def _write_result(path: Path, annos: list[dict]) -> None:
    try:
        with replacing(path) as stream:
            stream.write(safe_pickle.dumps(annos))  # OpenPCDet under numpy 1 reads it too
    except OSError as error:
        raise WriteError(
            f"the detections {path} cannot be written: {error.strerror or error}; make room, and evaluate again"
        ) from error
