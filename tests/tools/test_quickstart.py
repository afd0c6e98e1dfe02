import sys

import pytest
import yaml


@pytest.fixture
def quickstart(tool):
    return tool("quickstart")


def job(quickstart, folder, name, code, needs=()):
    """A job that runs a line of Python."""
    path = folder / name / "ckpt" / "checkpoint_epoch_2.pth"
    command = [sys.executable, "-c", code]
    return quickstart.Job(
        name=name, command=command, log=folder / name / "log", epochs=2, checkpoint=path, needs=list(needs)
    )


def test_a_job_waits_for_what_it_needs(quickstart, tmp_path):
    order = tmp_path / "order"
    write = f"import time; time.sleep({{}}); open({str(order)!r}, 'a').write('{{}}')"
    first = job(quickstart, tmp_path, "first", write.format(0.3, "1"))
    second = job(quickstart, tmp_path, "second", write.format(0, "2"), needs=[first])
    quickstart.run_jobs([first, second], parallel=2)
    assert order.read_text() == "12"


def test_a_failed_job_shows_the_end_of_its_log_and_stops_the_others(quickstart, tmp_path):
    slow = job(quickstart, tmp_path, "slow", "import time; time.sleep(60)")
    broken = job(quickstart, tmp_path, "broken", "raise SystemExit('out of luck')")
    with pytest.raises(SystemExit, match="(?s)broken failed .*out of luck") as error:
        quickstart.run_jobs([slow, broken], parallel=2)
    assert "exit 1" in str(error.value)
    assert slow.process.wait(timeout=10) != 0


def test_progress_is_read_from_the_training_log(quickstart, tmp_path):
    waiting = job(quickstart, tmp_path, "x", "")
    assert waiting.progress() == 0
    waiting.log.parent.mkdir()
    waiting.log.write_text("Train:    2/2 (100%) [  25/100 ( 25%)]  Loss: 1.0\nsome other line\n")
    assert waiting.progress() == pytest.approx(1.25)


def test_every_row_has_a_file_and_the_epochs_it_names(quickstart, tools):
    files = [cfg for _, cfg in quickstart.STUDENTS.values()]
    assert set(quickstart.STUDENTS) >= {"student", "student+pointdistiller", "student+pointdistiller+logits"}
    for cfg_file in files:
        assert quickstart.epochs_of(cfg_file) > 0
    plain, *distilled = files[:3]
    # The control is fair: the first two distilled students see as many samples.
    assert {quickstart.epochs_of(f) for f in distilled} == {quickstart.epochs_of(plain)}
    student = yaml.safe_load((tools / plain).read_text())
    assert "KD" not in student


def test_a_distilled_student_is_told_its_teacher(quickstart):
    teacher = quickstart.training("teacher", "train.py", quickstart.CFGS / "pointpillar.yaml", 0)
    script, cfg_file = quickstart.STUDENTS["student+pointdistiller"]
    student = quickstart.training("student+pointdistiller", script, cfg_file, 1, teacher)
    assert student.needs == [teacher] and str(teacher.checkpoint) in student.command
    assert teacher.checkpoint.parts[-4:-1] == ("teacher", "seed0", "ckpt")
    assert student.checkpoint != teacher.checkpoint and "seed1" in student.checkpoint.parts
