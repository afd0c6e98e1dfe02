"""Plans with the real commands: a tiny one whole, and rehearsals of the paper's on real or simulated frames."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from easydict import EasyDict
from support import fake_commands, warm_python
from support.fake_tools import same
from support.tiny_model import TOOLS, write_tiny_model

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.experiments.plans.plan import FEW, load_plan, rehearsal
from pcdet.experiments.results.files import read_results
from pcdet.utils.safe_files import sum_path

pytestmark = pytest.mark.slow
PAPER = TOOLS / "cfgs" / "experiments"
NUSCENES, RELEASE = "paper_table_4", "v1.0-trainval"
WRITTEN = {"results.json", "results.md", "gains.png", "curves.png"}


def run_tool(name, *flags):
    """What a command of tools/ prints."""
    command = warm_python.shared().start([TOOLS / name, *flags], cwd=TOOLS)
    text = command.stdout.read()
    assert command.wait() == 0, text[-8000:]
    return text


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(folder, results) of a plan of one method with every stage."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny = write_tiny_model(folder, frames=12)
    unsure = {"POST_PROCESSING": {"SCORE_THRESH": 0.01}}  # what is trained so shortly gives no high scores
    for name, width in (("teacher", 0.25), ("student", 0.125)):
        content = {"_BASE_CONFIG_": str(tiny), "MODEL": {"WIDTH": width, **unsure}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    plan = {
        "NAME": "tiny",
        "DATA": {
            "PATH": str(folder / "kitti"),
            "TRAIN": {"INFOS": ["kitti_infos_train.pkl"], "FRAMES": 4},
            "SEARCH": {"INFOS": ["kitti_infos_val.pkl"], "FRAMES": 2},
            "REPORT": {"INFOS": ["kitti_infos_val.pkl"], "FIRST": 2},
        },
        "TEACHERS": {"full": {"CFG": str(folder / "teacher.yaml"), "EPOCHS": [4]}},
        "STUDENTS": {"half": {"CFG": str(folder / "student.yaml"), "TEACHER": "full", "EPOCHS": 4}},
        "METHODS": {"slices+logits": {"INIT": {"NAME": "slice"}, "LOSSES": [{"NAME": "PivotalLogit"}]}},
        "SEARCH": {"EPOCHS": 2, "WARM_STEPS": 1, "BATCHES": 1, "FACTORS": [1.0]},
        "SEEDS": {"SCREENING": 1, "FINALS": 1, "CURVES": 1},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    run_tool("experiment.py", "--plan", folder / "plan.yaml", "--output_dir", folder / "output", "--jobs", "2")
    return folder, read_results(folder / "output" / "results.json")


def test_a_tiny_plan_ends_with_its_results_page_and_pictures(tiny):
    folder, results = tiny
    assert WRITTEN <= {path.name for path in (folder / "output").iterdir()}
    assert {run.stage for run in results.runs} == {"teacher", "curves", "search", "screening", "finals"}
    assert {run.method for run in results.runs} == {"teacher", "plain", "slices", "slices+logits"}
    controls = {c.control: c.cost for c in results.comparisons if (c.method, c.metric) == ("slices+logits", "3d")}
    assert set(controls) == {
        "plain", "plain at equal compute", "plain at its best length",
        "slices", "slices at equal compute", "slices at its best length",
    }  # fmt: skip
    assert controls["plain"] == controls["slices"] > 1 >= controls["plain at equal compute"]


def test_reported_numbers_are_those_of_the_command_that_evaluates_a_checkpoint(tiny):
    folder, results = tiny
    run = next(run for run in results.runs if run.id == "half/slices+logits/x1/seed1")
    plan = folder / "output" / "cfgs" / "half" / "plain.yaml"
    report = cfg_from_yaml_file(plan, EasyDict()).DATA_CONFIG.INFO_PATH["test"][1:]
    content = {"_BASE_CONFIG_": str(plan), "DATA_CONFIG": {"INFO_PATH": {"test": report}}}
    (folder / "report.yaml").write_text(yaml.safe_dump(content))
    checkpoint = folder / "output" / run.folder / "ckpt" / "checkpoint_epoch_4.pth"
    flags = ["--cfg_file", folder / "report.yaml", "--ckpt", checkpoint, "--output_dir", folder / "tested"]
    run_tool("test.py", *flags, "--workers", "0", "--threads", "1", "--use_amp")
    tested = folder / "tested" / "eval" / "epoch_4" / "val" / "default"
    numbers = json.loads((tested / "run.json").read_text())["results"]["4"]
    assert run.report == pytest.approx({key: numbers[key] for key in run.report})
    file = folder / "output" / run.folder / "eval" / "eval_with_train" / "epoch_4" / "val" / "result.pkl"
    own = {frame["frame_id"]: frame for frame in pickle.loads(file.read_bytes())}
    frames = pickle.loads((tested / "result.pkl").read_bytes())
    assert len(frames) == 2 and len(own) == 4
    for frame in frames:
        assert len(frame["score"]) > 0
        for key in ("score", "boxes_lidar", "name"):
            np.testing.assert_array_equal(frame[key], own[frame["frame_id"]][key])


def test_the_audit_of_a_plan_has_its_runs_on_the_report_split(tiny):
    folder, results = tiny
    file = folder / "output" / "results.json"
    run_tool("audit.py", "--results", file, "--page", folder / "page.html", "--importance", "1")
    audit = json.loads((folder / "page.json").read_text())
    assert audit["frames"] == results.frames.report == 2
    assert [(m["name"], m["role"], m["seeds"]) for m in audit["models"]] == [
        ("teacher", "teacher", 1), ("plain", "control", 1), ("slices", "control", 1), ("slices+logits", "student", 1),
    ]  # fmt: skip
    assert {g["control"] for g in audit["gains"]} == {"plain", "slices"}
    moved = (folder / "moved").joinpath("results.json")
    moved.parent.mkdir()
    shutil.copy(file, moved)
    assert "no runs beside" in run_tool("audit.py", "--results", moved)
    assert (folder / "moved" / "audit.html").is_file()


def test_the_fake_commands_of_other_tests_write_what_the_real_ones_write(tiny):
    folder, _ = tiny
    kd = {"LOSSES": [{"NAME": "PivotalLogit"}]}
    for method, block in (("plain", {}), ("slices+logits", kd)):
        real = json.loads((folder / "output" / "measures" / "half" / method / "measure.json").read_text())
        fake = fake_commands.measures_of(block, is_teacher=False)
        assert shape_of(fake) == shape_of({key: value for key, value in real.items() if key in fake})
        assert {"batches", "epochs", "warm_steps"} == real.keys() - fake.keys()


def test_a_plan_killed_at_three_moments_ends_with_the_results_of_the_one_that_was_not(tiny):
    """SIGKILL for the plan and all of its real trainings, wherever they are."""
    if os.environ.get("PCDET_ALL_PLANS") != "1":
        pytest.skip("trains the tiny plan again, which takes minutes; set PCDET_ALL_PLANS=1 to run it")
    folder, undisturbed = tiny
    output = (folder / "output").rename(folder / "undisturbed").with_name("output")  # commands name their folder
    flags, chance = ["--plan", folder / "plan.yaml", "--output_dir", output, "--jobs", "2"], random.Random(0)
    try:
        for jobs in (1, 4, 9):  # that have begun
            with start_alone("experiment.py", *flags) as command:
                while len(list(output.rglob("job.json"))) < jobs:
                    assert command.poll() is None
                    time.sleep(0.05)
                time.sleep(chance.uniform(0, 4))
                os.killpg(command.pid, signal.SIGKILL)
            assert command.returncode == -signal.SIGKILL
        assert not (output / "results.json").exists()
        run_tool("experiment.py", *flags)
        assert same(read_results(output / "results.json")) == same(undisturbed)
    finally:
        shutil.rmtree(output)
        (folder / "undisturbed").rename(output)


def start_alone(name, *flags):
    """A command of tools/ that leads a group of processes, so that one signal ends all of it."""
    return subprocess.Popen([sys.executable, TOOLS / name, *flags], cwd=TOOLS, start_new_session=True)


def shape_of(content):
    """Its keys, down to those of its mappings."""
    return {key: shape_of(content[key]) for key in sorted(content)} if isinstance(content, dict) else None


def test_a_plan_on_nuscenes_trains_on_boxes_that_its_teacher_found_once(tmp_path):
    make_samples(tmp_path / "nuscenes", 2, 3)
    model = "cfgs/simulated_nuscenes_models/centerpoint_pillar.yaml"
    small = {"_BASE_CONFIG_": model, "MODEL": {"WIDTH": 0.25}}
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(small))
    train, val = ["nuscenes_infos_3sweeps_train.pkl"], ["nuscenes_infos_3sweeps_val.pkl"]
    data = {"PATH": str(tmp_path / "nuscenes"), "VERSION": RELEASE, "SEARCH": {"INFOS": val, "FRAMES": 2}}
    data |= {"REPORT": {"INFOS": val, "FIRST": 2}, "TRAIN": {"INFOS": train, "FRAMES": 2}}
    plan = {
        "NAME": "once",
        "DATA": {**data, "UNLABELLED": {"INFOS": train, "FIRST": 2}},
        "TEACHERS": {"full": {"CFG": model, "EPOCHS": [1]}},
        "STUDENTS": {"4x": {"CFG": str(tmp_path / "student.yaml"), "TEACHER": "full", "EPOCHS": 1}},
        "METHODS": {"once": {"INIT": {"NAME": "slice"}, "LABELS": {"SCORE": 0.3}, "LOSSES": []}},
        "UNLABELLED": ["once"],
        "LABELLED_ONCE": ["once"],
        "SEEDS": {"SCREENING": 1, "FINALS": 1, "CURVES": 1},
        "LENGTHS": [1],
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    flags = ["--plan", tmp_path / "plan.yaml", "--rehearse", "--output_dir", tmp_path / "out", "--jobs", "2"]
    run_tool("experiment.py", *flags)
    folder = tmp_path / "out_rehearsal"
    results = read_results(folder / "results.json")
    (once,) = [run for run in results.runs if run.method == "once" and run.report]
    assert once.report["NDS"] >= 0 and results.metric == "NDS"
    found = pickle.loads(next(folder.glob("labels/full/eval/*/val/default/result.pkl")).read_bytes())
    log = next((folder / once.folder).glob("train*.log")).read_text()
    assert len(found) == 2 and "are the labels of 2 frames: car" in log


# ---------------------------------------------------------------------------------------------------- the paper's plans


@pytest.fixture(scope="module")
def few_frames(kitti_real, tmp_path_factory):
    """A folder with links to a few real frames, whose info files are long enough for the splits of table 3."""
    root = tmp_path_factory.mktemp("few")
    os.symlink((kitti_real / "training").resolve(), root / "training")
    (root / "ImageSets").mkdir()
    for split, number in (("train", 8), ("val", FEW)):
        names = (kitti_real / "ImageSets" / f"{split}.txt").read_text().split()[:number]
        (root / "ImageSets" / f"{split}.txt").write_text("\n".join(names))
    dataset = cfg_from_yaml_file(TOOLS / "cfgs/dataset_configs/kitti_dataset.yaml", EasyDict())
    create_kitti_infos(dataset, CLASS_NAMES, root, workers=1)
    file = root / "kitti_infos_train.pkl"
    infos = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps((infos * 500)[:3712]))  # as many as KITTI has; a rehearsal reads a few of them
    sum_path(file).unlink()
    return root


def make_samples(root, val_scenes, sweeps):
    """Writes a simulated nuScenes release of two key frames a scene, prepared for models of so many sweeps."""
    size = {"train-scenes": 2, "val-scenes": val_scenes, "key-frames": 2, "sweeps": 2, "azimuths": 400, "reach": 22}
    flags = [part for key, value in size.items() for part in (f"--{key}", str(value))]
    simulator = ["-m", "pcdet.datasets.simulated", "--out", root, "--format", "nuscenes", "--release", RELEASE]
    subprocess.run([sys.executable, *simulator, *flags], cwd=TOOLS.parent, check=True)
    create_nuscenes_infos(root, RELEASE, sweeps, workers=0)


@pytest.fixture(scope="module")
def few_samples(tmp_path_factory):
    """A simulated nuScenes release of a few samples, prepared for the models of ten sweeps."""
    root = tmp_path_factory.mktemp("few_samples")
    make_samples(root, 1, 10)
    return root


@pytest.mark.parametrize("name", [path.stem for path in sorted(PAPER.glob("paper_*.yaml"))])
def test_a_rehearsal_of_a_plan_of_the_paper_goes_through_every_stage(name, request, tmp_path):
    if os.environ.get("PCDET_ALL_PLANS") != "1":
        pytest.skip("takes minutes of two cores; set PCDET_ALL_PLANS=1 to run it")
    output = tmp_path / name
    data = request.getfixturevalue("few_samples" if name == NUSCENES else "few_frames")
    flags = ["--plan", PAPER / f"{name}.yaml", "--rehearse", "--data_path", data, "--output_dir", output]
    run_tool("experiment.py", *flags, "--jobs", "2")
    folder = tmp_path / f"{name}_rehearsal"
    results = read_results(folder / "results.json")
    plan = rehearsal(load_plan(PAPER / f"{name}.yaml")[0])
    assert WRITTEN <= {path.name for path in folder.iterdir()} and not output.exists()
    assert {(run.student, run.method) for run in results.runs if run.student} >= {
        (student, method) for student in plan.students for method in ("plain", *plan.methods)
    }
    assert results.frames.train == results.frames.search == results.frames.report == FEW
    assert results.metric == ("NDS" if name == NUSCENES else "3d moderate R40 mAP")
    shutil.rmtree(folder)  # some hundred MB of checkpoints
