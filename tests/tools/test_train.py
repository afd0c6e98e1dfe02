"""train.py, train_kd.py, test.py and their launch scripts, from end to end on a few simulated frames."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from commands import run, start
from easydict import EasyDict

from pcdet.cli import test, train_kd, training_evaluation
from pcdet.cli.folders import experiment_group
from pcdet.engine.precision import Precision
from pcdet.registry import ConfigError
from pcdet.utils.checkpoint_names import epoch_id
from pcdet.utils.folder_lock import FolderLock

FLAGS = ["--workers", "0", "--device", "cpu", "--seed", "3", "--logger_iter_interval", "1", "--ckpt_save_interval", "2"]


def run_script(name, args, *, tools, code=0):
    """Output of a launch script, called with tools/ as working directory."""
    env = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", f"scripts/{name}", *map(str, args)]
    done = subprocess.run(command, cwd=tools, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-12000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(cfg_file, tools, tmp_path_factory):
    """(output folder, log) of four epochs without an interruption."""
    out = tmp_path_factory.mktemp("trained")
    command = ["train.py", "--cfg_file", cfg_file, "--output_dir", out, *FLAGS, "--save_to_file"]
    return out, run(command, cwd=tools, fresh=True)


def test_training_leaves_openpcdets_files_and_lines(trained, cfg_file):
    out, log = trained
    assert sorted(p.name for p in (out / "ckpt").iterdir()) == [
        "checkpoint_epoch_2.pth", "checkpoint_epoch_2.pth.sha256",
        "checkpoint_epoch_4.pth", "checkpoint_epoch_4.pth.sha256",
    ]  # fmt: skip
    assert (out / "tiny.yaml").read_bytes() == cfg_file.read_bytes()
    assert any((out / "tensorboard").iterdir()) and len(list(out.glob("train_*.log"))) == 1
    result = out / "eval/eval_with_train/epoch_4/val"
    assert len(pickle.loads((result / "result.pkl").read_bytes())) == 2
    assert len(list((result / "final_result/data").glob("*.txt"))) == 2
    assert (out / "eval/eval_with_train/eval_list_val.txt").read_text() == "4\n"
    for line in (
        "CUDA_VISIBLE_DEVICES=",
        "cfg_file         ",
        "cfg.MODEL.NAME: PointPillar",
        "Car AP_R40@0.70, 0.70, 0.70:",
    ):
        assert line in log
    assert len(re.findall(r"Train: +[1-4]/4 \( *\d+%\) \[ *[12]/2 .*Acc_iter", log)) == 8
    state = torch.load(out / "ckpt/checkpoint_epoch_4.pth", weights_only=True)
    assert (state["epoch"], state["it"], state["seed"]) == (4, 8, 3)


def test_the_run_record_carries_what_a_result_must(trained):
    record = json.loads((trained[0] / "run.json").read_text())
    assert record["train_cpu_s"] > 0 and record["seed"] == 3 and record["world_size"] == 1
    assert record["command"][0] == "train.py" and record["config"]["OPTIMIZATION"]["NUM_EPOCHS"] == 4
    assert record["dataset"]["samples"] == 4 and record["dataset"]["fingerprint"]
    assert "Car_3d/moderate_R40" in record["results"]["4"]


def test_without_use_amp_a_training_is_float32_in_contiguous_maps(trained):
    out, log = trained
    assert "precision float32, contiguous maps: mixed precision was not asked for (--use_amp)" in log
    record = json.loads((out / "run.json").read_text())
    assert (record["precision"], record["layout"]) == ("float32", "contiguous")


def test_a_training_is_evaluated_in_its_own_precision(monkeypatch):
    seen = {}
    session = SimpleNamespace(
        cfg=EasyDict(CLASS_NAMES=["Car"], MODEL={}, DATA_CONFIG={"DATA_SPLIT": {"test": "val"}}), logger=None,
        args=SimpleNamespace(save_to_file=False), device=torch.device("cpu"), output_dir=Path("out"),
        precision=Precision("cpu", torch.bfloat16), loader=lambda training: (None, []),
    )  # fmt: skip
    monkeypatch.setattr(
        training_evaluation, "eval_one_epoch", lambda model, loader, settings, **_: seen.update(was=settings) or {}
    )
    training_evaluation.Evaluation(session, None, None)._evaluate(1, Path("out"))
    assert seen["was"].precision is session.precision


def test_a_finished_training_says_so_and_ends(trained, cfg_file, tools):
    log = run(["train.py", "--cfg_file", cfg_file, "--output_dir", trained[0], *FLAGS], cwd=tools)
    assert "is already trained 4 epochs; 4 were asked for" in log and "Nothing left to evaluate" in log
    assert "Train:" not in log


def test_a_killed_training_goes_on_to_the_same_weights(trained, cfg_file, tools, tmp_path):
    command = ["train.py", "--cfg_file", cfg_file, "--output_dir", tmp_path, *FLAGS, "--skip_eval"]
    with start(command, cwd=tools) as process:
        for line in process.stdout:
            if "Train:" in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
        code = process.wait(60)
    if code == 0:
        pytest.fail(f"training ended before the signal came: {rest}")
    assert code == 128 + signal.SIGTERM and "Saved" in rest
    stopped = torch.load(tmp_path / "ckpt/latest_model.pth", weights_only=True)
    assert 0 < stopped["it"] < 8
    log = run(command, cwd=tools)
    assert f"loaded {tmp_path / 'ckpt/latest_model.pth'}" in log or "checkpoint_epoch_2" in log
    expected, found = (
        torch.load(out / "ckpt/checkpoint_epoch_4.pth", weights_only=True)["model_state"]
        for out in (trained[0], tmp_path)
    )
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert len(json.loads((tmp_path / "run.json").read_text())["sessions"]) == 2


def test_an_unreadable_checkpoint_is_an_error_and_not_a_fresh_start(cfg_file, tools, tmp_path):
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt/checkpoint_epoch_1.pth").write_bytes(b"cut short")
    log = run(["train.py", "--cfg_file", cfg_file, "--output_dir", tmp_path, *FLAGS], cwd=tools, code=1)
    assert "checkpoint_epoch_1.pth (9 bytes) cannot be read" in log and "Traceback" not in log


def test_a_killed_training_leaves_its_folder_free_and_goes_on_from_the_newest_good_checkpoint(
    trained, cfg_file, tools, tmp_path
):
    """Killed with loader workers, which live on for seconds; its half-written files and the damaged newest are told."""
    command = ["train.py", "--cfg_file", cfg_file, "--output_dir", tmp_path, *FLAGS, "--workers", "2"]
    with start(command, cwd=tools) as process:
        for line in process.stdout:
            if "Train:" in line:
                process.kill()
                break
        process.wait(60)
    shutil.copy(trained[0] / "ckpt/checkpoint_epoch_2.pth", tmp_path / "ckpt")
    (tmp_path / "ckpt/checkpoint_epoch_3.pth").write_bytes(b"cut short")
    (tmp_path / "ckpt/latest_model.pth.partial-1-0a1b2c3d").write_bytes(b"half")
    log = run([*command, "--best_metric", "Car_3d/easy_R40"], cwd=tools)
    assert "latest_model.pth.partial-1-0a1b2c3d, which a killed process left half-written" in log
    good = tmp_path / "ckpt/checkpoint_epoch_2.pth"
    assert "checkpoint_epoch_3.pth (9 bytes) cannot be read" in log and f"going on from {good} instead" in log
    state = torch.load(tmp_path / "ckpt/checkpoint_best.pth", weights_only=True)  # of the final evaluation
    assert state["epoch"] == json.loads((tmp_path / "run.json").read_text())["best"]["epoch"] == 4
    with FolderLock(tmp_path, advice=""):
        log = run(command, cwd=tools, code=1)
    assert f"FolderInUseError: {tmp_path} is written to by process {os.getpid()} on " in log
    assert "--extra_tag or --output_dir" in log and "Traceback" not in log


def test_a_test_split_that_cannot_be_evaluated_is_told_before_the_training(cfg_file, tools, tmp_path):
    command = ["train.py", "--cfg_file", cfg_file, "--output_dir", tmp_path / "out", *FLAGS, "--epochs", "1"]
    missing = ["--set", "DATA_CONFIG.INFO_PATH.test", "[nowhere.pkl]"]
    log = run([*command, *missing], cwd=tools, code=1)
    assert "nowhere.pkl does not exist" in log and "--skip_eval trains without an evaluation" in log
    assert "Train:" not in log and "Traceback" not in log
    log = run([*command, "--skip_eval", "--eval_interval", "1", *missing], cwd=tools, code=1)
    assert "--skip_eval, without --eval_interval, trains without an evaluation" in log
    assert "Train:" in run([*command, "--skip_eval", *missing], cwd=tools)


def test_another_training_in_the_folder_has_results_of_its_own(cfg_file, tools, tmp_path):
    flags = [*FLAGS, "--epochs", "1"]
    for seed in ("3", "4"):
        log = run(["train.py", "--cfg_file", cfg_file, "--output_dir", tmp_path, *flags, "--seed", seed], cwd=tools)
        assert "EPOCH 1 EVALUATION" in log
        shutil.rmtree(tmp_path / "ckpt")
    record, old = (json.loads((tmp_path / name).read_text()) for name in ("run.json", "run-old1.json"))
    assert (record["seed"], old["seed"]) == (4, 3)
    assert len(record["sessions"]) == len(old["sessions"]) == 1 and "1" in record["results"]


def test_weights_go_to_safetensors_and_back_and_are_evaluated_alike(trained, cfg_file, tools, tmp_path):
    ckpt = trained[0] / "ckpt/checkpoint_epoch_4.pth"
    command = ["export_weights.py", "--ckpt", ckpt, "--out", tmp_path / "s.safetensors", "--config", "tiny"]
    run(command, cwd=tools, fresh=True)
    run(["export_weights.py", "--ckpt", tmp_path / "s.safetensors", "--out", tmp_path / "b.pth"], cwd=tools)
    expected, found = (torch.load(file, weights_only=True) for file in (ckpt, tmp_path / "b.pth"))
    assert (found["epoch"], found["it"], found["config"]) == (4, 8, "tiny")
    assert found["model_state"].keys() == expected["model_state"].keys()
    for name, value in expected["model_state"].items():
        assert torch.equal(value, found["model_state"][name]) and value.dtype == found["model_state"][name].dtype
    command = ["test.py", "--cfg_file", cfg_file, "--output_dir", tmp_path, "--workers", "0", "--device", "cpu"]
    run([*command, "--ckpt", tmp_path / "s.safetensors", "--eval_tag", "st"], cwd=tools)
    (record,) = tmp_path.glob("eval/*/val/st/run.json")
    (results,) = json.loads(record.read_text())["results"].values()
    assert results == json.loads((trained[0] / "run.json").read_text())["results"]["4"]
    command = ["train.py", "--cfg_file", cfg_file, "--output_dir", tmp_path / "t", *FLAGS]
    log = run([*command, "--ckpt", tmp_path / "s.safetensors"], cwd=tools, code=1)
    assert "s.safetensors has no optimizer_state, so training cannot go on from it" in log and "Traceback" not in log


def test_a_checkpoint_is_evaluated_alone(trained, cfg_file, tools):
    out, log = trained
    ckpt = out / "ckpt/checkpoint_epoch_4.pth"
    command = ["test.py", "--cfg_file", cfg_file, "--output_dir", out, "--workers", "1", "--device", "cpu"]
    again = run([*command, "--ckpt", ckpt, "--infer_time", "--batch_size", "1"], cwd=tools, fresh=True)
    result = out / "eval/epoch_4/val/default"
    assert (result / "result.pkl").is_file() and any(result.glob("log_eval_*.txt"))
    assert "ms a batch, 2 batches" in again
    results = json.loads((result / "run.json").read_text())["results"]["4"]
    assert results == json.loads((out / "run.json").read_text())["results"]["4"]


def test_all_checkpoints_are_evaluated_in_mixed_precision(trained, cfg_file, tools):
    out, _ = trained
    command = ["test.py", "--cfg_file", cfg_file, "--output_dir", out, "--eval_all", "--workers", "0", "--use_amp"]
    log = run([*command, "--amp_dtype", "bf16", "--device", "cpu"], cwd=tools)  # insists, on every machine
    assert "EPOCH 2 EVALUATION" in log and "EPOCH 4 EVALUATION" in log
    assert log.count("precision bfloat16, channels-last maps: ") == 1
    record = json.loads((out / "eval/eval_all_default/default/run.json").read_text())
    assert (record["precision"], record["layout"]) == ("torch.bfloat16", "channels_last")
    assert (out / "eval/eval_all_default/default/eval_list_val.txt").read_text() == "2\n4\n"


def test_without_a_checkpoint_test_says_what_it_needs(capsys):
    with pytest.raises(SystemExit):
        test.parse_args(["--cfg_file", "x.yaml"])
    assert "give --ckpt FILE, or --eval_all" in capsys.readouterr().err


@pytest.mark.parametrize(
    "ckpt, number",
    [("a/pointpillar_7728.pth", "7728"), ("a/model.pth", "no_number"), ("run2/checkpoint_best.pth", "best")],
)
def test_the_epoch_is_the_last_number_of_the_path(ckpt, number):
    assert epoch_id(ckpt) == number


def test_two_processes_distil_and_evaluate(trained, cfg_file, tools, tmp_path):
    """dist_train_kd.sh with bf16 and channels-last, then dist_test.sh against one process."""
    kd_file = cfg_file.with_name("tiny_kd.yaml")
    teacher = trained[0] / "ckpt/checkpoint_epoch_4.pth"
    common = ["--cfg_file", kd_file, "--output_dir", tmp_path, "--workers", "0", "--device", "cpu"]
    flags = ["--batch_size", "2", "--use_amp", "--amp_dtype", "bf16", "--epochs", "2", "--eval_interval", "1"]
    log = run_script("dist_train_kd.sh", ["2", *common, *flags, "--teacher_ckpt", teacher], tools=tools)
    assert "total_batch_size: 2, 2 processes" in log and "precision bfloat16, channels-last maps: " in log
    assert log.count("Train:") == 4  # rank 0 alone logs: two iterations an epoch, first and last
    assert log.count("EVALUATION *") == 2
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["world_size"] == 2 and record["config"]["KD"]["TEACHER"]["CKPT"] == str(teacher)
    ckpt = tmp_path / "ckpt/checkpoint_epoch_2.pth"
    expected = torch.load(teacher, weights_only=True)["model_state"].keys()
    assert torch.load(ckpt, weights_only=True)["model_state"].keys() == expected
    run_script("dist_test.sh", ["2", *common, *flags[2:5], "--ckpt", ckpt], tools=tools)
    annos = pickle.loads((tmp_path / "eval/epoch_2/val/default/result.pkl").read_bytes())
    assert [a["frame_id"] for a in annos] == [
        a["frame_id"] for a in pickle.loads((tmp_path / "eval/eval_with_train/epoch_2/val/result.pkl").read_bytes())
    ]


def test_a_distillation_does_not_go_on_from_its_control(trained, cfg_file, tools):
    """The tensors would fit: the losses of this file have no weights."""
    teacher = trained[0] / "ckpt/checkpoint_epoch_4.pth"
    command = ["train_kd.py", "--cfg_file", cfg_file.with_name("tiny_kd.yaml"), "--output_dir", trained[0], *FLAGS]
    log = run([*command, "--teacher_ckpt", teacher], cwd=tools, code=1)
    assert f"CheckpointError: {teacher} is of a training without a teacher, this is a distillation" in log
    assert "--extra_tag or --output_dir" in log and "Traceback" not in log


def test_the_results_of_a_test_are_the_labels_of_a_training_without_a_teacher(trained, cfg_file, tools, tmp_path):
    """The two validation frames take the place of unlabelled ones; a car is added to what was found in each."""
    results = pickle.loads((trained[0] / "eval/eval_with_train/epoch_4/val/result.pkl").read_bytes())
    for result in results:
        result["name"] = np.append(result["name"], "Car")
        result["score"] = np.append(result["score"], 0.9)
        box = np.array([[9.0, 1.0, -1.0, 3.9, 1.6, 1.5, 0.3]], np.float32)
        result["boxes_lidar"] = np.concatenate([result["boxes_lidar"], box])
    (tmp_path / "result.pkl").write_bytes(pickle.dumps(results))
    frames = ["DATA_CONFIG.INFO_PATH.unlabelled", "[kitti_infos_val.pkl]", "DATA_CONFIG.DATA_SPLIT.unlabelled", "val"]
    command = [
        "train.py",
        "--cfg_file",
        cfg_file,
        "--output_dir",
        tmp_path / "out",
        *FLAGS,
        "--epochs",
        1,
        "--skip_eval",
    ]
    log = run([*command, "--set", *frames], cwd=tools, code=1)
    assert "set KD.LABELS" in log and "PSEUDO_LABELS for boxes that were found before" in log
    labels = f"{{FILE: {tmp_path / 'result.pkl'}, SCORE: 0.85}}"
    log = run([*command, "--set", *frames, "DATA_CONFIG.PSEUDO_LABELS", labels], cwd=tools)
    assert re.search(r"PSEUDO_LABELS: boxes of \S+ are the labels of 2 frames: Car \d+, ", log)
    assert "KITTI train: 6 frames" in log and len(re.findall(r"Train: +1/1 \( *\d+%\) \[ *[123]/3 ", log)) == 3


def test_a_checkpoint_of_a_replaced_recipe_names_the_file_to_go_on_with(trained, cfg_file, tools, tmp_path):
    """The recipe ``new`` took the place of another, which is kept as ``new_paper``, and ``new_other`` is a third."""
    taps = {"new": "spatial_features_2d", "new_other": "spatial_features", "new_paper": "pillar_features"}
    base = yaml.safe_load(cfg_file.with_name("tiny_kd.yaml").read_text())
    for name, tap in taps.items():
        losses = [{"NAME": "PointDistiller", "FEATURE": tap, "SAMPLE": {"NUM": 20}}]
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**base, "KD": {**base["KD"], "LOSSES": losses}}))
    teacher = trained[0] / "ckpt/checkpoint_epoch_4.pth"
    flags = [*FLAGS, "--teacher_ckpt", teacher, "--output_dir", tmp_path / "out"]
    run(["train_kd.py", "--cfg_file", tmp_path / "new_paper.yaml", *flags, "--epochs", "1", "--skip_eval"], cwd=tools)
    log = run(["train_kd.py", "--cfg_file", tmp_path / "new.yaml", *flags], cwd=tools, code=1)
    assert "OtherLossesError: " in log and "was distilled with other losses" in log and "Traceback" not in log
    assert f"{tmp_path / 'new_paper.yaml'} has losses that own such weights: go on with --cfg_file" in log


IN_A_ROOT_OF_ITS_OWN = """
import importlib, sys, _init_path
from pcdet.config import cfg
cfg.ROOT_DIR = sys.argv.pop(1)
command = importlib.import_module("pcdet.cli." + sys.argv[1])
sys.argv.pop(0)
command.main()
"""


def test_a_control_has_a_folder_beside_the_distilled_run_where_test_finds_it(cfg_file, tools, tmp_path):
    kd_file = cfg_file.with_name("tiny_kd.yaml")
    folder = tmp_path / "output" / kd_file.parent.name / kd_file.stem / "default"

    def call(name, *flags):
        command = ["-c", IN_A_ROOT_OF_ITS_OWN, tmp_path, name, "--cfg_file", kd_file, "--workers", "0"]
        return run([*command, "--device", "cpu", *flags], cwd=tools)

    log = call("train", "--epochs", "1", "--skip_eval")
    assert "The KD block of" in log and f"trains the student alone, in {folder / 'plain'}; train_kd.py distils" in log
    assert [path.name for path in folder.iterdir()] == ["plain"]
    log = call("test", "--extra_tag", "default/plain", "--eval_all")
    assert "EPOCH 1 EVALUATION" in log and (folder / "plain/eval/eval_all_default/default/eval_list_val.txt").is_file()


@pytest.mark.parametrize(
    "kd, message",
    [
        (None, "KD: missing, so there is nothing to distil; train the model alone with train.py"),
        ({"TEACHER": {"CKPT": None}}, "KD.TEACHER.CKPT: the teacher has no weights; give --teacher_ckpt FILE"),
        ({"LOSSES": []}, "KD.TEACHER.CKPT: the teacher has no weights; give --teacher_ckpt FILE"),
        ({"TEACHER": {"CKPT": "nowhere.pth"}}, "the teacher's checkpoint nowhere.pth does not exist"),
    ],
)
def test_a_missing_teacher_is_a_clear_error(kd, message):
    with pytest.raises((ConfigError, FileNotFoundError), match=re.escape(message)):
        train_kd.build_student_with_teacher(EasyDict(KD=kd), None, None)


def test_slices_of_the_teacher_do_not_silently_replace_pretrained_weights(tmp_path):
    (tmp_path / "teacher.pth").touch()
    kd = EasyDict(TEACHER={"CKPT": str(tmp_path / "teacher.pth")}, INIT={"NAME": "slice"})
    with pytest.raises(ConfigError, match="KD.INIT: slices of the teacher would replace --pretrained_model"):
        train_kd.build_student_with_teacher(EasyDict(KD=kd), None, None, pretrained="student.pth")


def test_experiments_are_grouped_by_their_folder_below_cfgs(tools, tmp_path):
    group = experiment_group
    assert group(tools / "cfgs/kitti_models/pointpillar.yaml") == "kitti_models"
    assert group(tools / "cfgs/kitti_models/kd/pointpillar_4x.yaml") == "kitti_models/kd"
    assert group(tmp_path / "mine.yaml") == tmp_path.name


def test_a_launch_script_without_a_number_says_how_it_is_called(tools):
    log = run_script("dist_train.sh", ["--cfg_file", "x.yaml"], tools=tools, code=2)
    assert "usage: bash scripts/dist_train.sh NUM_PROCESSES" in log


def test_slurm_scripts_start_one_process_per_gpu(tools, tmp_path, monkeypatch):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    log = run_script("slurm_train.sh", ["part", "job", "16", "--cfg_file", "x.yaml"], tools=tools)
    assert "-p part --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8" in log
    assert re.search(r"train.py --launcher slurm --tcp_port \d+ --cfg_file x.yaml", log)
    log = run_script("slurm_test_mgpu.sh", ["part", "2", "--ckpt", "a"], tools=tools)
    assert "--ntasks=2" in log and "test.py --launcher slurm" in log and log.rstrip().endswith("--ckpt a")
    log = run_script("slurm_test_single.sh", ["part", "--ckpt", "a"], tools=tools)
    assert "--ntasks=1" in log and log.rstrip().endswith("test.py --ckpt a")
