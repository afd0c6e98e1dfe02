import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.simulated import write_kitti, write_nuscenes
from pcdet.experiments.quickstart import trainings as planned
from pcdet.experiments.quickstart.data_sets import DATA_SETS
from pcdet.experiments.quickstart.meaning import what_it_means

# Of each data set, by its name.
DETECTORS = [(name, detector) for name, simulated in DATA_SETS.items() for detector in simulated.detectors]


@pytest.fixture
def quickstart(tool):
    return tool("quickstart")


@pytest.fixture
def trainings(quickstart):
    """The quickstart's own, of a detector with a number of seeds."""
    return lambda detector, seeds: planned.trainings(quickstart.setting_of("kitti"), detector, seeds)


def rows_of(tools, data, detector):
    """Row -> its configuration, the teacher's among them."""
    simulated = DATA_SETS[data]
    rows = ["teacher", *simulated.detectors[detector]]
    return {row: cfg_from_yaml_file(tools / planned.model_file(simulated, detector, row), EasyDict()) for row in rows}


def test_the_data_sets_of_a_quickstart_share_no_folder(quickstart):
    settings = [quickstart.setting_of(name) for name in DATA_SETS]
    folders = [(setting.output / detector, setting.data) for setting in settings for detector in ("a", "b")]
    assert len({output for output, _ in folders}) == len(folders)
    assert len({data for _, data in folders}) == len(settings)


@pytest.mark.parametrize(("data", "detector"), DETECTORS)
def test_every_distilled_row_has_a_control_of_as_many_epochs_and_the_plain_student_one_of_more(tools, data, detector):
    cfgs = rows_of(tools, data, detector)
    assert list(cfgs)[:5] == ["teacher", "student", "student+longer", "student+slices", "student+pointdistiller"]
    epochs = {row: cfg.OPTIMIZATION.NUM_EPOCHS for row, cfg in cfgs.items()}
    longer = epochs.pop("student+longer")
    del epochs["teacher"]
    assert len(set(epochs.values())) == 1 and longer > epochs["student"]
    assert {row for row, cfg in cfgs.items() if "KD" not in cfg} == {"teacher", "student", "student+longer"}


@pytest.mark.parametrize(("data", "detector"), DETECTORS)
def test_the_students_differ_in_their_training_alone(tools, data, detector):
    cfgs = rows_of(tools, data, detector)
    del cfgs["teacher"]
    assert len({json.dumps([cfg.MODEL, cfg.DATA_CONFIG]) for cfg in cfgs.values()}) == 1


@pytest.mark.parametrize(("data", "detector"), DETECTORS)
def test_slices_alone_have_no_loss_to_run_a_teacher_for(tools, data, detector):
    kd = rows_of(tools, data, detector)["student+slices"].KD
    assert kd.INIT.NAME == "slice" and kd.LOSSES == []


def test_a_distilled_student_is_told_its_teacher_and_waits_for_it(trainings):
    jobs, models = trainings("pointpillar", seeds=2)
    teacher, students = jobs[0], jobs[1:]
    assert teacher.needs == [] and "seed0" in teacher.product.parts
    assert len(students) == len(models) - 1 == 10
    assert len({job.folder for job in jobs}) == len(jobs)
    for job in students:
        distilled = "train_kd.py" in job.command
        assert job.needs == ([teacher] if distilled else [])
        assert (str(teacher.product) in job.command) == distilled
    assert sum(not job.needs for job in students) == 4  # the student and the longer one, of two seeds


def test_one_process_trains_the_teacher_however_many_trainings_run_at_once(trainings):
    """Two would double its batch at the same learning rate."""
    jobs, _ = trainings("pointpillar", seeds=1)
    assert {tuple(job.command[:2]) for job in jobs} == {(sys.executable, "train.py"), (sys.executable, "train_kd.py")}
    assert not any("--launcher" in job.command for job in jobs)


def test_a_student_goes_stale_with_its_teacher(trainings, monkeypatch):
    before = {job.name: job.facts for job in trainings("pointpillar", seeds=1)[0]}
    read = planned.cfg_from_yaml_file

    def with_a_wider_teacher(path, config):
        cfg = read(path, config)
        if path.name == "pointpillar.yaml":
            cfg.MODEL.WIDTH = 1.5
        return cfg

    monkeypatch.setattr(planned, "cfg_from_yaml_file", with_a_wider_teacher)
    after = {job.name: job.facts for job in trainings("pointpillar", seeds=1)[0]}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set(before) - {"student (seed 0)", "student+longer (seed 0)"}


def row(score, params=100.0, cpu_s=100.0):
    scores = score if isinstance(score, list) else [score]
    return {"3d": {"moderate": scores}, "params": params, "train_cpu_s": cpu_s}


def test_the_closing_paragraph_says_what_the_numbers_say():
    rows = {
        "teacher": row(50.0, params=400.0, cpu_s=300.0),
        "student": row(30.0),
        "student+longer": row(35.0, cpu_s=170.0),
        "student+slices": row(42.0),
        "student+pointdistiller": row(33.0, cpu_s=170.0),
        "student+slices+logits": row(41.0, cpu_s=150.0),
    }
    text = what_it_means(rows)
    assert "25% of the teacher's weights and 20.0 points of 3D mAP (moderate) less than its 50.0" in text
    assert "Trained for 1.7 times the CPU time it gains +5.0" in text
    assert "slices of the teacher's weights, at 1.0 times the CPU time, +12.0" in text
    assert "PointDistiller takes 1.7 times the student's CPU time" in text
    assert "+3.0 over the student that saw as many samples, -2.0 over the one that trained as long" in text
    assert "On top of slices, logits brings -1.0 at 1.5 times their CPU time" in text
    assert "Highest of the students: student+slices, 42.0" in text
    assert "This is one seed" in text


def test_several_seeds_are_not_called_one():
    rows = {
        name: row([30.0, 32.0])
        for name in ("teacher", "student", "student+longer", "student+slices", "student+pointdistiller")
    }
    assert "one seed" not in what_it_means(rows)


def test_the_next_steps_can_be_typed_in_a_checkout_whose_path_has_a_blank(quickstart, monkeypatch):
    root = Path("/home/me/my code/pcdet")
    monkeypatch.setattr(quickstart, "TOOLS", root / "tools")
    setting = dataclasses.replace(quickstart.setting_of("kitti"), data=Path("/data sets/quickstart"))
    models = [("student", "cfgs/x.yaml", Path("/out put/ckpt/checkpoint_epoch_5.pth"))]
    lines = quickstart.next_steps(setting, "second", 1, models)
    start = next(i for i, line in enumerate(lines) if "test.py" in line)
    words = shlex.split("".join(line.rstrip("\\") for line in lines[start : start + 3]))
    options = dict(zip(words[5::2], words[6::2], strict=False))
    assert (root / "tools" / options["--ckpt"]).resolve() == Path("/out put/ckpt/checkpoint_epoch_5.pth")
    assert (root / "tools" / words[-1]).resolve() == Path("/data sets/quickstart")
    assert any("DETECTOR=second SEEDS=3" in line for line in lines)
    assert any("another detector" in line and "DETECTOR=pointpillar" in line for line in lines)
    assert not any("SEEDS=3" in line for line in quickstart.next_steps(setting, "second", 3, models))


def test_the_next_steps_on_nuscenes_scenes_stay_on_them(quickstart):
    models = [("student", "cfgs/x.yaml", Path("/out/ckpt/checkpoint_epoch_5.pth"))]
    lines = quickstart.next_steps(quickstart.setting_of("nuscenes"), "centerpoint_pillar", 1, models)
    assert any("make quickstart DETECTOR=centerpoint_pillar DATA=nuscenes SEEDS=3" in line for line in lines)


@pytest.mark.parametrize("data", DATA_SETS)
def test_boxes_are_drawn_into_a_scene_of_the_split_for_testing(quickstart, tmp_path, data):
    if data == "kitti":
        root = write_kitti(tmp_path, frames=3, val_frames=1, workers=1, progress=False)
        expected = root / "training" / "velodyne" / f"{(root / 'ImageSets/val.txt').read_text().strip()}.bin"
    else:
        small = dict(train_scenes=1, val_scenes=1, key_frames=2, sweeps=1, azimuths=20, progress=False)
        root = write_nuscenes(tmp_path, **small, workers=1)
        [expected] = (root / "v1.0-mini/samples/LIDAR_TOP").glob("scene-0103*1600010300000000.pcd.bin")
    cloud, name = quickstart.unseen_cloud(root)
    assert cloud == expected
    assert name == expected.name.split(".")[0]


def test_an_unknown_detector_is_named_with_those_of_the_data_set(quickstart, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--data", "nuscenes", "--detector", "second"])
    with pytest.raises(SystemExit):
        quickstart.main()
    assert "--detector must be one of centerpoint_pillar with --data nuscenes, got second" in capsys.readouterr().err


def test_a_second_quickstart_is_told_of_the_first(quickstart, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "OUTPUT", tmp_path / "output")
    held = quickstart.lock()
    with pytest.raises(SystemExit, match=f"written to by process {os.getpid()} "):
        quickstart.lock()
    held.release()
    quickstart.lock().release()


def test_what_was_trained_in_another_precision_does_not_count(trainings, monkeypatch):
    def facts():
        return [job.facts for job in trainings("pointpillar", seeds=1)[0]]

    before = facts()
    monkeypatch.setattr(planned, "mixed_precision", lambda _: SimpleNamespace(name="another"))
    assert all(a != b for a, b in zip(before, facts(), strict=True))
