"""What a run's detections are worth on the frames of one split: the data set's own numbers, kept beside the run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcdet.datasets import build_dataset
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.frame_scores import FrameScores
from pcdet.datasets.metrics import EvaluationMetrics, Metric
from pcdet.datasets.pickles import read_pickle
from pcdet.experiments.plans.splits import Splits
from pcdet.registry import ConfigError
from pcdet.utils.safe_files import replacing, sha256_of


class Scorer:
    """Scores detections on the frames of one split.

    Args:
        cfg: a model's configuration, for its ``DATA_CONFIG``, ``CLASS_NAMES`` and ``POST_PROCESSING.EVAL_METRIC``.
        splits: of the plan.
        name: of the split, "search" or "report".
        tools: folder that relative paths count from.

    Attributes:
        metrics: what the data set's evaluation measures.
        classes: of the models.

    Raises:
        ConfigError: the data set cannot score frames one by one, which the intervals over frames need.
    """

    def __init__(self, cfg: Any, splits: Splits, name: str, tools: Path):
        data = {**cfg.DATA_CONFIG, "DATA_PATH": str(tools / cfg.DATA_CONFIG.DATA_PATH)}
        data["INFO_PATH"] = {**data["INFO_PATH"], "test": splits.files[name]}
        quiet = logging.Logger("pcdet.scores", logging.WARNING)
        self.name, self.classes = name, list(cfg.CLASS_NAMES)
        self.digest, self.frames = splits.digests[name], splits.frames[name]
        self.dataset = build_dataset(data, self.classes, training=False, logger=quiet)
        if not hasattr(self.dataset, "frame_scores"):
            raise ConfigError(
                f"DATA_CONFIG.DATASET: plans need a data set with frame_scores(det_annos, class_names, metric), as "
                f"KittiDataset has it, got {type(self.dataset).__name__}; derive it from that, or add the method"
            )
        # a user's class need not derive from DatasetTemplate
        self.metrics: EvaluationMetrics = getattr(self.dataset, "METRICS", DatasetTemplate.METRICS)
        self._asked = (cfg.MODEL.get("POST_PROCESSING") or {}).get("EVAL_METRIC", "kitti")  # as test.py asks

    def scores(self, result_file: Path) -> dict[str, float]:
        """The data set's flat result dictionary, from a run's ``result.pkl``, which may hold other frames too.

        It is kept in ``scores_<split>.json`` beside the file, and made anew when the file or the split is another one,
        or when it lacks what METRICS name by now.

        Raises:
            ConfigError: the evaluation does not give all numbers that the plan's results hold.
        """
        kept = result_file.with_name(f"scores_{self.name}.json")
        made_of = {"result": sha256_of(result_file), "frames": self.digest}
        if kept.is_file():
            content = json.loads(kept.read_text(encoding="utf-8"))
            if content["made_of"] == made_of and not self._lacking(content["scores"]):
                return content["scores"]
        _, result = self.dataset.evaluation(self.detections(result_file), self.classes, eval_metric=self._asked)
        result = {key: float(value) for key, value in result.items()}
        if lacking := self._lacking(result):
            raise ConfigError(
                f"DATA.{self.name.upper()}: {type(self.dataset).__name__}'s evaluation of {result_file} must give each "
                f"number that its METRICS name, as a finite one, got {result.get(lacking[0], 'none')} for "
                f"{lacking[0]}; take frames with labels, or correct the evaluation or METRICS"
            )
        with replacing(kept) as stream:
            stream.write((json.dumps({"made_of": made_of, "scores": result}, indent=1) + "\n").encode())
        return result

    def _lacking(self, result: Mapping[str, float]) -> list[str]:
        """Keys of what the plan's results hold that are missing here or not finite."""
        wanted = self.metrics.kept_keys(self.classes)
        return [key for key in wanted if not math.isfinite(result.get(key, math.nan))]

    def score(self, result_file: Path, score: Metric | None = None) -> float:
        """A score of all classes at its main level, as it is shown; by default the main score."""
        score = score or self.metrics.main
        return score.value(self.scores(result_file), self.classes, score.main_level)

    def frame_scores(self, result_file: Path, score: Metric) -> FrameScores:
        """What each frame adds to a score, for resamples of frames."""
        return self.dataset.frame_scores(self.detections(result_file), self.classes, score.name)

    def detections(self, result_file: Path) -> list[dict]:
        """Those of the split's frames."""
        return [anno for anno in read_pickle(result_file) if str(anno["frame_id"]) in self.frames]
