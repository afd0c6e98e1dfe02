"""Run by test_dist.py under torchrun: trains and evaluates the toy in two processes and writes down what happened."""

import json
import logging
import sys
from pathlib import Path

import torch
from support.toy import OPTIMIZATION, ToyDataset, ToyModel
from torch.utils.data import DataLoader

from pcdet.engine.checkpoint import CheckpointError, read_checkpoint
from pcdet.engine.checkpoint_evaluation import repeat_eval_ckpt
from pcdet.engine.dist import end_dist, init_dist
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch
from pcdet.engine.hooks import Checkpoint
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.run_record import RecordTimes, RunRecord
from pcdet.engine.runtime import choose_seed, parallelize, seed_process
from pcdet.engine.trainer import Trainer, TrainSettings
from pcdet.utils import commu_utils

CPU = torch.device("cpu")


def train(info, out, seed):
    seed_process(seed)
    dataset = ToyDataset(8)
    loader = DataLoader(dataset, batch_size=2, sampler=range(info.rank, 8, 2), collate_fn=dataset.collate)
    model = ToyModel()
    model.register_buffer("anchors", torch.tensor([float(info.rank)]), persistent=False)
    model.register_buffer("counted", torch.tensor([float(info.rank)]))
    optimizer = build_optimizer(model, OPTIMIZATION)
    ddp = parallelize(model, CPU)
    scheduler = build_scheduler(optimizer, len(loader), 2, -1, OPTIMIZATION)
    record = RunRecord(out / "run.json", {}) if info.is_main else None
    hooks = [*([Checkpoint(out)] if info.is_main else []), RecordTimes(record)]
    Trainer(ddp, loader, optimizer, scheduler, hooks, settings=TrainSettings(epochs=2, seed=seed)).run()
    return model


def evaluate_all_but_the_unreadable(info, out, logger):
    """Epochs that were evaluated where rank 1 alone cannot read the first, and the error; both ranks gather in each."""
    evaluated = []

    def load(ckpt):
        if info.rank == 1 and ckpt.stem.endswith("_1"):
            raise CheckpointError(f"checkpoint {ckpt} cannot be read")

    def evaluate(ckpt, epoch, result_dir):
        evaluated.append(sum(commu_utils.all_gather(epoch)))
        return {}

    try:
        repeat_eval_ckpt(load, evaluate, out, out / "eval_again", split="val", logger=logger)
    except CheckpointError as error:
        return evaluated, str(error)


def main(out):
    info = init_dist("pytorch", "cpu")
    facts = {"info": [info.rank, info.world_size, info.local_world_size], "seed": choose_seed()}
    model = train(info, out, facts["seed"])
    facts["weight"] = model.head.weight.tolist()
    facts["buffers"] = [model.anchors.item(), model.counted.item()]
    facts["tensors"] = {
        k: v.item() for k, v in commu_utils.reduce_dict({"a": torch.tensor(info.rank + 1.0)}, average=False).items()
    }
    facts["mean"] = commu_utils.average_reduce_value(info.rank)
    facts["all"] = commu_utils.all_gather({"rank": info.rank})
    facts["epoch"] = read_checkpoint(out / "checkpoint_epoch_2.pth")["epoch"]
    settings = EvalSettings(class_names=["Car"], recall_thresholds=[0.3], progress=False)
    dataset = ToyDataset(5)  # an odd number: one process has a frame more
    loader = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate)
    logger = logging.getLogger("toy")
    facts["result"] = eval_one_epoch(model, loader, settings, epoch_id=2, result_dir=out / "r", logger=logger)
    facts["epochs"] = list(
        repeat_eval_ckpt(read_checkpoint, lambda c, e, r: {}, out, out / "eval", split="val", logger=logger)
    )
    facts["one_unreadable"] = evaluate_all_but_the_unreadable(info, out, logger)
    (out / f"rank{info.rank}.json").write_text(json.dumps(facts))
    end_dist()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
