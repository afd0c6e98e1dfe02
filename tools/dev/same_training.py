"""Shows that a change moves no number: trains the three small detectors for 20 iterations and compares every tensor.

    python tools/dev/same_training.py --record before.json --checkout ../before
    python tools/dev/same_training.py --compare before.json

Each detector is trained alone, distilled, and distilled from slices of its teacher, by the commands of ``--checkout``
(this one if left out) on 40 simulated scenes with fixed seeds. What is recorded is a digest of every tensor of the last
checkpoint: weights, buffers, optimizer, adapters of the losses. Both sides must run on one machine with one torch:
another processor rounds differently.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
SCENES, BATCH_SIZE = 40, 2  # 20 iterations in one epoch
# Teacher first: the others are distilled from its 20 iterations.
TRAININGS = {
    "pointpillar": ("pointpillar_pointdistiller", "pointpillar_slices_logits"),
    "second": ("second_pointdistiller", "second_slices_pointdistiller"),
    "pointrcnn": ("pointrcnn_pointdistiller", "pointrcnn_slices_pointdistiller"),
}


def run(command: list[str], cwd: Path) -> None:
    """Runs a command to its end; one that fails ends this program with the end of its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def make_scenes(checkout: Path, folder: Path) -> None:
    """Writes the simulated scenes and their info files with the checkout's own programs."""
    module = [sys.executable, "-m"]
    flags = ["--frames", str(SCENES + 4), "--val-frames", "4", "--seed", "0", "--far", "29.5", "--quiet"]
    run([*module, "pcdet.datasets.simulated", "--out", str(folder), *flags], checkout)
    dataset = checkout / "tools/cfgs/dataset_configs/simulated_kitti_dataset.yaml"
    create = ["pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos", str(dataset), "--data_path", str(folder)]
    run([*module, *create], checkout)


def train(checkout: Path, cfg_file: str, data: Path, out: Path, teacher: Path | None = None) -> Path:
    """Trains a model file for one epoch of 20 iterations; returns its checkpoint."""
    program = "train.py" if teacher is None else "train_kd.py"
    command = [sys.executable, program, "--cfg_file", f"cfgs/simulated_models/{cfg_file}.yaml"]
    command += ["--output_dir", str(out), "--seed", "7", "--epochs", "1", "--batch_size", str(BATCH_SIZE)]
    command += ["--workers", "0", "--threads", "1", "--device", "cpu", "--skip_eval"]
    command += [] if teacher is None else ["--teacher_ckpt", str(teacher)]
    run([*command, "--set", "DATA_CONFIG.DATA_PATH", str(data)], checkout / "tools")
    return out / "ckpt" / "checkpoint_epoch_1.pth"


def digests(value, path: str = "") -> dict[str, str]:
    """Path -> digest of every tensor and number in nested dictionaries and lists."""
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {path: f"{value.dtype} {list(value.shape)} {hashlib.sha256(content).hexdigest()[:16]}"}
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in digests(item, f"{path}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in digests(item, f"{path}/{i}").items()}
    return {path: repr(value)} if isinstance(value, (bool, int, float)) else {}


def measure(checkout: Path) -> dict[str, dict[str, str]]:
    """Model file -> digests of what its training leaves."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        make_scenes(checkout, data)
        for teacher_file, students in TRAININGS.items():
            teacher = train(checkout, teacher_file, data, Path(folder, teacher_file))
            checkpoints = {teacher_file: teacher}
            for student in students:
                checkpoints[student] = train(checkout, f"kd/{student}", data, Path(folder, student), teacher)
            for name, file in checkpoints.items():
                state = torch.load(file, map_location="cpu", weights_only=False)
                kept = {key: state[key] for key in ("model_state", "optimizer_state", "kd_state", "it") if key in state}
                found[name] = digests(kept)
                print(f"{name}: {len(found[name])} entries", flush=True)
    return found


def differences(before: dict, after: dict) -> list[str]:
    """A line for each training that differs."""
    lines = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, {}), after.get(name, {})
        wrong = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
        if wrong:
            lines.append(f"{name}: {len(wrong)} of {len(old)} entries differ, first {', '.join(wrong[:3])}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose commands train; this checkout if left out")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--record", type=Path, metavar="FILE", help="write the digests here")
    what.add_argument("--compare", type=Path, metavar="FILE", help="hold the digests against these")
    args = parser.parse_args()
    found = measure(args.checkout.resolve())
    if args.record:
        args.record.write_text(json.dumps(found, indent=1) + "\n")
        return
    wrong = differences(json.loads(args.compare.read_text()), found)
    print("\n".join(wrong) if wrong else f"all {sum(map(len, found.values()))} entries are bit-equal")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
