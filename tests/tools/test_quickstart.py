import json

import pytest
from easydict import EasyDict

from pcdet.config import cfg_from_yaml_file

DETECTORS = ["pointpillar", "second", "pointrcnn"]


@pytest.fixture
def quickstart(tool):
    return tool("quickstart")


def rows_of(quickstart, tools, detector):
    """Row -> its configuration, the teacher's among them."""
    rows = ["teacher", *quickstart.ROWS[detector]]
    return {row: cfg_from_yaml_file(tools / quickstart.model_file(detector, row), EasyDict()) for row in rows}


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_distilled_row_has_a_control_of_equal_samples_and_one_of_equal_time(quickstart, tools, detector):
    cfgs = rows_of(quickstart, tools, detector)
    assert list(cfgs)[:5] == ["teacher", "student", "student+longer", "student+slices", "student+pointdistiller"]
    epochs = {row: cfg.OPTIMIZATION.NUM_EPOCHS for row, cfg in cfgs.items()}
    assert epochs["student"] == epochs["student+slices"] == epochs["student+pointdistiller"]
    assert epochs["student"] < epochs["student+longer"]
    assert {row for row, cfg in cfgs.items() if "KD" not in cfg} == {"teacher", "student", "student+longer"}


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_students_differ_in_their_training_alone(quickstart, tools, detector):
    cfgs = rows_of(quickstart, tools, detector)
    del cfgs["teacher"]
    assert len({json.dumps([cfg.MODEL, cfg.DATA_CONFIG]) for cfg in cfgs.values()}) == 1


@pytest.mark.parametrize("detector", DETECTORS)
def test_slices_alone_have_no_loss_to_run_a_teacher_for(quickstart, tools, detector):
    kd = rows_of(quickstart, tools, detector)["student+slices"].KD
    assert kd.INIT.NAME == "slice" and kd.LOSSES == []


def test_a_distilled_student_is_told_its_teacher_and_waits_for_it(quickstart):
    jobs, models = quickstart.trainings("pointpillar", seeds=2)
    teacher, students = jobs[0], jobs[1:]
    assert teacher.needs == [] and "seed0" in teacher.checkpoint.parts
    assert len(students) == len(models) - 1 == 10
    assert len({job.folder for job in jobs}) == len(jobs)
    for job in students:
        distilled = "train_kd.py" in job.command
        assert job.needs == ([teacher] if distilled else [])
        assert (str(teacher.checkpoint) in job.command) == distilled
    assert sum(not job.needs for job in students) == 4  # the student and the longer one, of two seeds


def test_one_process_trains_the_teacher_however_many_trainings_run_at_once(quickstart):
    """Two would double its batch at the same learning rate."""
    jobs, _ = quickstart.trainings("pointpillar", seeds=1)
    assert all("--launcher" not in job.command and "train.py" not in " ".join(job.command[:1]) for job in jobs)
    assert jobs[0].command[1] == "train.py"


def test_a_student_goes_stale_with_its_teacher(quickstart, monkeypatch):
    before = {job.name: job.facts for job in quickstart.trainings("pointpillar", seeds=1)[0]}
    read = quickstart.cfg_from_yaml_file

    def with_a_wider_teacher(path, config):
        cfg = read(path, config)
        if path.name == "pointpillar.yaml":
            cfg.MODEL.WIDTH = 1.5
        return cfg

    monkeypatch.setattr(quickstart, "cfg_from_yaml_file", with_a_wider_teacher)
    after = {job.name: job.facts for job in quickstart.trainings("pointpillar", seeds=1)[0]}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set(before) - {"student (seed 0)", "student+longer (seed 0)"}


def row(score, params=100.0, cpu_s=100.0):
    scores = score if isinstance(score, list) else [score]
    return {"3d": {"moderate": scores}, "params": params, "train_cpu_s": cpu_s}


def test_the_closing_paragraph_says_what_the_numbers_say(tool):
    rows = {
        "teacher": row(50.0, params=400.0, cpu_s=300.0),
        "student": row(30.0),
        "student+longer": row(35.0, cpu_s=170.0),
        "student+slices": row(42.0),
        "student+pointdistiller": row(33.0, cpu_s=170.0),
        "student+slices+logits": row(41.0, cpu_s=150.0),
    }
    text = tool("_meaning").what_it_means(rows)
    assert "25% of the teacher's weights and 20.0 points of 3D mAP (moderate) less than its 50.0" in text
    assert "Trained for 1.7 times the CPU time it gains +5.0" in text
    assert "slices of the teacher's weights, at 1.0 times the cost, +12.0" in text
    assert "+3.0 over the student that saw as many samples, -2.0 over the one that trained as long" in text
    assert "On top of slices, logits brings -1.0 for 1.5 times their cost" in text
    assert "Highest of the students: student+slices, 42.0" in text
    assert "This is one seed" in text


def test_several_seeds_are_not_called_one(tool):
    rows = {
        name: row([30.0, 32.0])
        for name in ("teacher", "student", "student+longer", "student+slices", "student+pointdistiller")
    }
    assert "one seed" not in tool("_meaning").what_it_means(rows)
