"""A data set and a model small enough to train in milliseconds, with the interfaces that the engine uses."""

import logging

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pcdet.models.kd.training_state import TrainingState

OPTIMIZATION = {
    "BATCH_SIZE_PER_GPU": 2, "NUM_EPOCHS": 2, "OPTIMIZER": "adam_onecycle", "LR": 0.01, "WEIGHT_DECAY": 0.01,
    "GRAD_NORM_CLIP": 10,
}  # fmt: skip


class ShuffleByEpoch(torch.utils.data.Sampler):
    def __init__(self, size, seed=0):
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(np.random.default_rng([self.seed, self.epoch]).permutation(self.size).tolist())

    def __len__(self):
        return self.size


class ToyDataset(Dataset):
    """Frames of four numbers; the augmentation depends on (epoch, frame) only."""

    class_names = ["Car"]

    def __init__(self, size=8, bad_frame=None):
        self.size, self.bad_frame, self.epoch = size, bad_frame, 0
        self.data_augmentor, self.disabled = self, None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def disable_augmentation(self, names):
        self.disabled = list(names)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        points = np.random.default_rng([index, self.epoch]).standard_normal(4)
        if index == self.bad_frame:
            points[0] = np.nan
        return {"points": points, "frame_id": f"{index:06d}"}

    @staticmethod
    def collate(samples):
        return {
            "points": np.stack([s["points"] for s in samples]),
            "frame_id": np.array([s["frame_id"] for s in samples]),
            "batch_size": len(samples),
        }

    def generate_prediction_dicts(self, batch_dict, pred_dicts, class_names, output_path=None):
        annos = []
        for frame_id, prediction in zip(batch_dict["frame_id"], pred_dicts, strict=True):
            scores = prediction["pred_scores"].float().cpu().numpy()
            annos.append({"name": np.array(class_names * len(scores)), "score": scores, "frame_id": frame_id})
            if output_path is not None:
                (output_path / f"{frame_id}.txt").write_text("")
        return annos

    def evaluation(self, det_annos, class_names, **kwargs):
        assert [anno["frame_id"] for anno in det_annos] == [f"{i:06d}" for i in range(self.size)]
        return "Car AP", {"Car_3d/moderate_R40": float(np.mean([a["score"][0] for a in det_annos]))}


class ToyModel(nn.Module):
    """A linear layer, BatchNorm, and noise from the global generator (so that RNG states matter)."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        self.register_buffer("global_step", torch.zeros(1, dtype=torch.int64))

    def update_global_step(self):
        self.global_step += 1

    def forward(self, batch_dict):
        x = self.norm(self.linear(batch_dict["points"].float()))
        score = self.head(torch.relu(x)).squeeze(-1)
        if not self.training:
            predictions = [{"pred_scores": s.reshape(1)} for s in score]
            return predictions, {"gt": 2 * len(score), "roi_0.3": 0, "rcnn_0.3": len(score)}
        loss = (score - 1).square().mean() + 0.01 * (torch.rand(()) * score).mean()
        return {"loss": loss}, {"rpn_loss": loss.detach(), "pos": 3}, {}


class ToyDistiller(TrainingState, nn.Module):
    """A student, an adapter of the distiller's own, a teacher that is no submodule, and ``set_epoch``."""

    def __init__(self, adapter=True, teacher=None):
        super().__init__()
        self.student, self.epochs_seen, self.hidden = ToyModel(), [], (teacher or ToyModel(),)
        self.adapter = nn.Linear(1, 1) if adapter else nn.Identity()

    @property
    def teacher(self):
        return self.hidden[0]

    def set_epoch(self, epoch, total_epochs):
        self.epochs_seen.append((epoch, total_epochs))

    def forward(self, batch_dict):
        ret_dict, tb_dict, disp_dict = self.student(batch_dict)
        kd = self.adapter(ret_dict["loss"].reshape(1, 1)).square().mean()
        return {"loss": ret_dict["loss"] + 0.1 * kd}, {**tb_dict, "kd_loss": kd}, disp_dict


def make_loader(size=8, batch_size=2, workers=0, **kwargs):
    dataset = ToyDataset(size, **kwargs)
    return DataLoader(
        dataset, batch_size=batch_size, sampler=ShuffleByEpoch(size), num_workers=workers, collate_fn=dataset.collate,
        drop_last=True,
    )  # fmt: skip


def make_logger(caplog=None):
    logger = logging.getLogger("toy")
    logger.setLevel(logging.INFO)
    return logger
