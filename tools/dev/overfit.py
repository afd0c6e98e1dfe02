"""Teaches a small detector a few real KITTI frames by heart and counts the objects that it then finds in them.

    python tools/dev/overfit.py --data KITTI --detector second

A network, its targets and its losses that agree with each other learn eight frames within minutes; where one of them
is wrong, recall stays low. The frames are the first of the train split that have a car and whose objects all lie within
the range of ``DETECTOR_small.yaml``, with five LiDAR points or more; augmentation is off. Recall is the log's
``recall_rcnn_0.5``: 3D overlap above 0.5, any class, of the final boxes (score of at least 0.1) or, with two stages, of
all refined proposals. CPU time is user and system of the whole training command. Killed and started again with the same
arguments, it goes on, and counts the last command's time alone.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO_ROOT))

import numpy as np
import yaml

from pcdet.utils import safe_pickle

TOOLS, OUTPUT = REPO_ROOT / "tools", REPO_ROOT / "output/overfit"
CLASSES = ["Car", "Pedestrian", "Cyclist"]
# epochs and batch size that are enough within a quarter of an hour of one core
TRAINING = {"pointpillar": (200, 4), "second": (120, 4), "pointrcnn": (560, 2), "centerpoint_pillar": (100, 4)}
AUGMENTORS = "gt_sampling,random_world_flip,random_world_rotation,random_world_scaling"
ONE_THREAD = dict(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")


def link_frames(data: Path, folder: Path, splits: dict[str, list[str]]) -> None:
    """A KITTI folder of links to the frames of ``data``, with its own splits and info files."""
    (folder / "ImageSets").mkdir(parents=True, exist_ok=True)
    link = folder / "training"
    if not link.exists():
        link.symlink_to((data / "training").resolve(), target_is_directory=True)
    for split, frames in splits.items():
        (folder / "ImageSets" / f"{split}.txt").write_text("".join(f"{frame}\n" for frame in frames))
    command = ["-m", "pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos"]
    command += [str(TOOLS / "cfgs/dataset_configs/kitti_dataset.yaml"), "--data_path", str(folder)]
    run(command, folder / "infos.txt")


def frames_to_learn(infos: list[dict], cloud_range: list[float], number: int) -> tuple[list[str], dict[str, int]]:
    """The first frames that this script's first lines describe, and how many objects of each class they hold."""
    frames, objects = [], dict.fromkeys(CLASSES, 0)
    for info in infos:
        annos = info["annos"]
        boxes = annos["gt_boxes_lidar"]  # (N, 7), without the DontCare areas, which come last
        names = annos["name"][: len(boxes)]
        ours = np.isin(names, CLASSES)
        inside = (boxes[:, :2] >= cloud_range[:2]) & (boxes[:, :2] <= cloud_range[3:5])
        dense = annos["num_points_in_gt"][: len(boxes)] >= 5
        if "Car" in names and (inside.all(axis=1) & dense)[ours].all():
            frames.append(info["point_cloud"]["lidar_idx"])
            for name in names[ours]:
                objects[name] += 1
        if len(frames) == number:
            return frames, objects
    raise SystemExit(f"only {len(frames)} of the {len(infos)} train frames fit, {number} are asked for")


def prepare(data: Path, cfg_file: Path, number: int) -> tuple[Path, dict[str, int]]:
    """The folder of the frames to learn, which are its train and its val split, and their objects."""
    everything, chosen = OUTPUT / "all", OUTPUT / f"{cfg_file.stem}_{number}"
    splits = {name: (data / "ImageSets" / f"{name}.txt").read_text().split() for name in ("train", "val")}
    link_frames(data, everything, splits)
    infos = safe_pickle.load(everything / "kitti_infos_train.pkl")
    cloud_range = yaml.safe_load(cfg_file.read_text())["DATA_CONFIG"]["POINT_CLOUD_RANGE"]
    frames, objects = frames_to_learn(infos, cloud_range, number)
    link_frames(data, chosen, {"train": frames, "val": frames})
    return chosen, objects


def run(command: list[str], log: Path) -> str:
    """Runs Python with these arguments, its output into ``log``; returns what it printed."""
    command, env = [sys.executable, *command], os.environ | ONE_THREAD
    with log.open("w") as file:
        done = subprocess.run(command, cwd=REPO_ROOT, stdout=file, stderr=subprocess.STDOUT, env=env)
    text = log.read_text()
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:3])} failed (exit {done.returncode}); the end of {log}:\n{text[-2000:]}")
    return text


def cpu_minutes() -> float:
    """User and system time of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a KITTI folder with training/ and ImageSets/")
    parser.add_argument("--detector", choices=TRAINING, required=True)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--epochs", type=int, help="another number than the detector's own")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    epochs, batch = TRAINING[args.detector]
    epochs = args.epochs or epochs
    cfg_file = TOOLS / "cfgs/kitti_models" / f"{args.detector}_small.yaml"
    data, objects = prepare(args.data, cfg_file, args.frames)

    out = OUTPUT / f"{args.detector}_{args.frames}x{epochs}_seed{args.seed}"
    out.mkdir(parents=True, exist_ok=True)
    on_them = ["--cfg_file", str(cfg_file), "--batch_size", str(batch), "--output_dir", str(out), "--workers", "0"]
    fast = ["--threads", "1", "--use_amp"]
    where = ["--set", "DATA_CONFIG.DATA_PATH", str(data), "DATA_CONFIG.DATA_AUGMENTOR.DISABLE_AUG_LIST", AUGMENTORS]
    few = ["--skip_eval", "--max_ckpt_save_num", "1", "--ckpt_save_interval", str(epochs), "--seed", str(args.seed)]
    before = cpu_minutes()
    run(["tools/train.py", "--epochs", str(epochs), *on_them, *fast, *few, *where], out / "train.txt")
    minutes = cpu_minutes() - before
    ckpt = out / "ckpt" / f"checkpoint_epoch_{epochs}.pth"
    text = run(["tools/test.py", "--ckpt", str(ckpt), *on_them, "--threads", "1", *where], out / "test.txt")

    recall = {name: float(value) for name, value in re.findall(r"(recall_r\w+_0\.\d): ([\d.]+)", text)}
    result = {"detector": args.detector, "objects": objects, "epochs": epochs, "batch": batch, "seed": args.seed}
    result |= {"cpu_minutes": round(minutes, 1), "recall": recall}
    (out / "result.json").write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
