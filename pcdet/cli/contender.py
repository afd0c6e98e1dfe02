"""One config and checkpoint of a comparison: its data, its model, what it finds, and how right that is."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from easydict import EasyDict

from pcdet import api
from pcdet.cli.test import TEST_SEED
from pcdet.config import ConfigError, cfg_from_list, cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch
from pcdet.engine.precision import Precision
from pcdet.engine.runtime import seed_process
from pcdet.utils.common_utils import batch_to_device
from pcdet.utils.weights import MisfitError


@dataclass(frozen=True)
class Conditions:
    """What all contenders of one precision have in common.

    Attributes:
        device: where the models run.
        precision: of evaluation and timing.
        batch_size: of the evaluation.
        workers: loading processes of the evaluation.
        threads: CPU threads of the network.
        set_cfgs: ``KEY value ...`` that change every model file.
    """

    device: torch.device = torch.device("cpu")
    precision: Precision = field(default_factory=Precision)
    batch_size: int = 4
    workers: int = 1
    threads: int = 1
    set_cfgs: tuple[str, ...] = ()


class Contender:
    """One config and checkpoint, ready to be evaluated and timed.

    Args:
        name: of its row.
        cfg_file: the model file.
        ckpt: its weights.
        conditions: those of all contenders.
        logger: for what is read.

    Raises:
        MisfitError: the checkpoint is of another model; the row and the file are named.
    """

    def __init__(self, name: str, cfg_file: str, ckpt: str, conditions: Conditions, logger: logging.Logger):
        self.name, self.cfg_file, self.ckpt, self.conditions, self.logger = name, cfg_file, ckpt, conditions, logger
        self.cfg = cfg_from_yaml_file(cfg_file, EasyDict(LOCAL_RANK=0))
        if conditions.set_cfgs:
            cfg_from_list(list(conditions.set_cfgs), self.cfg)
        self.dataset, self.loader, _ = build_dataloader(
            dataset_cfg=self.cfg.DATA_CONFIG, class_names=self.cfg.CLASS_NAMES, batch_size=conditions.batch_size,
            dist=False, workers=conditions.workers, logger=logger, training=False,
        )  # fmt: skip
        try:
            model = api.build_detector(self.cfg, self.dataset, ckpt=ckpt, logger=logger)
        except MisfitError as error:
            raise MisfitError(f"--model {name} ({cfg_file}): {error}") from error
        self.model = api.place(model, conditions.device, conditions.precision).eval()

    def evaluate(self, result_dir: str | Path) -> dict[str, float]:
        """AP and recall over the whole test split, by the code and the keys of ``test.py``.

        Args:
            result_dir: gets the detections, ``result.pkl``, in the form of ``test.py``.

        Raises:
            ConfigError: nothing can be compared: the split has no labels, or the data set evaluates something else.
        """
        seed_process(TEST_SEED)
        settings = EvalSettings.from_cfg(self.cfg, precision=self.conditions.precision, progress=sys.stderr.isatty())
        result = eval_one_epoch(
            self.model, self.loader, settings, epoch_id=self.name, result_dir=result_dir,
            device=self.conditions.device, logger=self.logger,
        )  # fmt: skip
        metrics = self.dataset.METRICS
        if metrics.main.value(result, metrics.classes(result), metrics.main.main_level) is None:
            raise ConfigError(
                f"--model {self.name} ({self.cfg_file}): the test split of {self.cfg.DATA_CONFIG.DATA_PATH} gives "
                f"no numbers of {metrics.evaluation} evaluation: it has no labels, or "
                "POST_PROCESSING.EVAL_METRIC is another; compare on frames with labels (DATA_CONFIG.DATA_SPLIT.test), "
                "by the data set's own metric"
            )
        return result

    def batch(self, indices: Iterable[int]) -> dict:
        """Frames of the test split as a batch on the device; an index beyond the last begins again at the first."""
        frames = [self.dataset[index % len(self.dataset)] for index in indices]
        return batch_to_device(self.dataset.collate_batch(frames), self.conditions.device)

    def detect(self, batch: dict) -> None:
        """Runs the model on a batch, as an evaluation does."""
        with torch.no_grad(), self.conditions.precision.autocast():
            self.model(batch)

    def training_cpu_seconds(self) -> float | None:
        """CPU seconds that the run record beside the checkpoint states, or None."""
        record = Path(self.ckpt).parent.parent / "run.json"
        return json.loads(record.read_text()).get("train_cpu_s") if record.is_file() else None
