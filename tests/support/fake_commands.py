"""Commands in place of train.py, train_kd.py, test.py and kd_measure.py: their flags and files, in a moment each.

A detection's place is chance, but how many objects are found is not: a better method, a weight nearer to its best one
and a longer training find more. ``fake.json`` in the working directory holds `Settings`. What imports little starts
fast: numpy and yaml, and nothing of pcdet.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import yaml

from support.kitti_annos import detections

PLAIN_MACS = {"student_forward": 1_000_000, "student_backward": 2_000_000}
TEACHER_MACS = 500_000
# Loss -> (multiply-accumulates, share of the gradient at weight 1, weight that is best, objects that it finds there)
LOSSES = {"FitNet": (1_700_000, 0.6, 0.5, 0.08), "PivotalLogit": (900_000, 0.1, 9.0, 0.14)}
SLICES_FIND = 0.10
SETTINGS = {
    "step_s": 0.0,  # of an epoch
    "cpu_s": 60.0,  # that an epoch is said to have taken
    "upside_down": False,  # whether what helps on the other frames harms on the reported ones
    "reported": "2",  # first letter of the reported frames' names
}


def settings() -> dict:
    """``fake.json``, laid over the defaults."""
    return SETTINGS | json.loads(Path("fake.json").read_text())


# ------------------------------------------------------------------------------------------------------------ training


def train(distil: bool) -> None:
    """Trains and evaluates; a killed one goes on after the last epoch that it finished."""
    args = training_flags(distil)
    content = yaml.safe_load(Path(args.cfg_file).read_text())
    kd = content["KD"] if distil else {}
    teacher = json.loads(Path(args.teacher_ckpt).read_text()) if distil else None
    out = Path(args.output_dir)
    (out / "ckpt").mkdir(parents=True, exist_ok=True)
    tell("starts.txt", args.output_dir)
    done = epochs_done(out)
    while done < args.epochs:
        wait(settings()["step_s"])
        done += 1
        replace(out / "ckpt" / "place.json", json.dumps({"epochs": done}))
        tell("epochs.txt", f"{args.output_dir} {done}")
        print(f"Train: {done:>4d}/{args.epochs} ({100 * done / args.epochs:>3.0f}%) [   1/1 (100%)]", flush=True)
    is_teacher = Path(args.cfg_file).stem == "teacher"
    found = share_found(kd, is_teacher, args.epochs, teacher)
    replace(out / "ckpt" / f"checkpoint_epoch_{args.epochs}.pth", json.dumps({"found": found}))
    record = run_record(args, content) | {"train_cpu_s": args.epochs * settings()["cpu_s"]}
    replace(out / "run.json", json.dumps(record | {"train_wall_s": time.process_time()}))
    evaluate(out / "eval" / "eval_with_train" / f"epoch_{args.epochs}" / "val", content["DATA_CONFIG"], args, found)


def training_flags(distil: bool) -> argparse.Namespace:
    """Those that a plan gives; any other is an error, as with the real commands."""
    parser = argparse.ArgumentParser()
    for name in ("cfg_file", "output_dir", "workers", "threads", "logger_iter_interval", "ckpt_save_time_interval"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--max_ckpt_save_num", required=True)
    parser.add_argument("--ckpt_save_interval", required=True)
    parser.add_argument("--use_amp", action="store_true")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    if distil:
        parser.add_argument("--teacher_ckpt", required=True)
        parser.add_argument("--pretrained_model")
    return parser.parse_args()


def test() -> None:
    """Evaluates the checkpoint of an epoch."""
    parser = argparse.ArgumentParser()
    for name in ("cfg_file", "ckpt", "output_dir", "workers", "threads"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--use_amp", action="store_true")
    args = parser.parse_args()
    args.seed = 0
    tell("starts.txt", args.output_dir)
    data = yaml.safe_load(Path(args.cfg_file).read_text())["DATA_CONFIG"]
    epoch = Path(args.ckpt).stem.rpartition("_")[2]
    found = tuple(json.loads(Path(args.ckpt).read_text())["found"])
    evaluate(Path(args.output_dir) / "eval" / f"epoch_{epoch}" / "val" / "default", data, args, found)


def epochs_done(out: Path) -> int:
    """How many epochs an earlier start finished."""
    file = out / "ckpt" / "place.json"
    return json.loads(file.read_text())["epochs"] if file.is_file() else 0


def share_found(kd: dict, is_teacher: bool, epochs: int, teacher: dict | None) -> tuple[float, float]:
    """(share of the objects that the detector finds, what of it the distillation brings)."""
    gain = SLICES_FIND if kd.get("INIT", {}).get("NAME") == "slice" else 0.0
    for loss in kd.get("LOSSES", []):
        _, _, best, finds = LOSSES[loss["NAME"]]
        gain += finds * max(0.0, 1 - 0.4 * abs(math.log(kd["WEIGHT"] / best, 3)))
    gain *= 1.0 if teacher is None else teacher["found"][0] + 0.4  # the better the teacher, the more
    return (0.45 if is_teacher else 0.25) + 0.08 * math.log2(epochs) + gain, gain


def run_record(args: argparse.Namespace, content: dict) -> dict:
    """What of ``run.json`` a plan reads."""
    return {
        "command": sys.argv,
        "config": content,
        "seed": args.seed,
        "git_commit": None,
        "versions": {"numpy": np.__version__},
        "device": {"kind": "cpu", "threads": 1},
        "dataset": {"name": "KittiDataset", "frames": len(frames_of(content["DATA_CONFIG"], "train"))},
    }


def evaluate(folder: Path, data: dict, args: argparse.Namespace, found: tuple[float, float]) -> None:
    """Writes ``result.pkl``: detections of the same seed in the same frame differ by what more is found alone."""
    result = []
    share, gain = found
    for info in frames_of(data, "test"):
        name = frame_of(info)
        turned = settings()["upside_down"] and name.startswith(settings()["reported"])
        seed = zlib.crc32(f"{args.seed} {name}".encode())
        found = share - 2 * gain if turned else share
        result.append((detected if "annos" in info else detected_in_nuscenes)(info, seed, found) | {"frame_id": name})
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "result.pkl", pickle.dumps(result))


def frame_of(info: dict) -> str:
    """A frame's name in results."""
    return info["point_cloud"]["lidar_idx"] if "point_cloud" in info else Path(info["lidar_path"]).stem


def detected(info: dict, seed: int, share: float) -> dict:
    """Detections in a frame of KITTI."""
    [frame] = detections([info["annos"]], seed, share)
    return frame


def detected_in_nuscenes(info: dict, seed: int, share: float) -> dict:
    """Detections in a frame of nuScenes: this share of its objects, moved a little."""
    rng = np.random.default_rng(seed)
    kept = (rng.random(len(info["gt_names"])) < share) & (info["gt_names"] != "ignore")
    boxes = info["gt_boxes"][kept].copy()
    boxes[:, :2] += rng.normal(0, 0.3, (len(boxes), 2))
    found = {"name": info["gt_names"][kept], "score": rng.uniform(0.2, 0.9, len(boxes))}
    return found | {"boxes_lidar": np.nan_to_num(boxes), "metadata": {"token": info["token"]}}


def frames_of(data: dict, mode: str) -> list[dict]:
    """The infos of a mode's files."""
    folder = Path(data["DATA_PATH"]) / data.get("VERSION", "")
    files = [folder / name for name in data["INFO_PATH"][mode]]
    return [info for file in files for info in pickle.loads(file.read_bytes())]


# ----------------------------------------------------------------------------------------------------------- measuring


def measure() -> None:
    """Counts a method's multiply-accumulates, by its losses."""
    parser = argparse.ArgumentParser()
    for name in ("cfg_file", "json", "seed"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("batches", "warm_steps", "epochs"):
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--teacher_ckpt")
    args = parser.parse_args()
    kd = yaml.safe_load(Path(args.cfg_file).read_text()).get("KD", {})
    if args.teacher_ckpt is not None and not Path(args.teacher_ckpt).is_file():
        sys.exit(f"{args.teacher_ckpt} does not exist")
    tell("starts.txt", str(Path(args.json).parent))
    report = measures_of(kd, Path(args.cfg_file).stem == "teacher")
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    report |= {name: getattr(args, name) for name in ("batches", "warm_steps", "epochs")}
    replace(Path(args.json), json.dumps(report))


def measures_of(kd: dict, is_teacher: bool) -> dict:
    """The content of ``measure.json``, as kd_measure.py writes it."""
    names = [loss["NAME"] for loss in kd.get("LOSSES", [])]
    passes = {name: macs * (3 if is_teacher else 1) for name, macs in PLAIN_MACS.items()}
    passes["teacher_forward"] = TEACHER_MACS if names or kd.get("LABELS") is not None else 0
    passes["losses_forward"] = sum(LOSSES[name][0] // 2 for name in names)
    passes["losses_backward"] = sum(LOSSES[name][0] // 2 for name in names)
    parts = {
        part: sum(macs for name, macs in passes.items() if name.startswith(part))
        for part in ("student", "teacher", "losses")
    }
    losses = {name: strength(LOSSES[name][1]) | {"weight": 1.0} for name in names}
    total = strength(sum(LOSSES[name][1] for name in names))
    total["factor_for_share"] = total.pop("weight_for_share")
    return {
        "detection": {"value": 1.0, "gradient_norm": 1.0},
        "losses": losses,
        "total": total,
        "training_macs_per_sample": {**parts, "total": sum(parts.values())},
        "macs_by_pass": {name: {"dense": macs, "sparse": 0} for name, macs in passes.items()},
        "params": {
            "student": 30_000 if is_teacher else 7_500,
            "teacher": 30_000 if names else None,
            "trained_along": 0,
        },
        "share": 0.2,
        "seed": 0,
        "student_ckpt": None,
        "batch_size": 4,
    }


def strength(share: float) -> dict:
    """A loss whose gradient has this share of the detection loss's at weight 1."""
    wanted = 0.2 / share if share else None
    return {"value": share, "share_of_loss": share, "share_of_gradient": share, "weight_for_share": wanted}


# ------------------------------------------------------------------------------------------------------------- helpers


def wait(seconds: float) -> None:
    """Sleeps, and on as long as there is a file ``hold`` in the working directory."""
    time.sleep(seconds)
    while Path("hold").is_file():
        time.sleep(0.01)


def tell(file: str, line: str) -> None:
    """Adds a line to a file of the working directory."""
    with open(file, "ab", buffering=0) as stream:
        stream.write(f"{line}\n".encode())


def replace(file: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, file)
