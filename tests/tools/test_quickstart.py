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


@pytest.mark.parametrize("detector", ["pointpillar", "second", "pointrcnn"])
def test_every_row_has_a_file_and_the_control_sees_as_many_samples(quickstart, tools, detector):
    rows = quickstart.students_of(detector)
    plain, first_distilled = list(rows)[:2]
    assert plain == "student" and first_distilled.startswith("student+pointdistiller")
    epochs = {name: quickstart.epochs_of(cfg_file) for name, (_, cfg_file) in rows.items()}
    assert quickstart.epochs_of(quickstart.teacher_file(detector)) >= epochs["student"] > 0
    assert epochs[first_distilled] == epochs[plain]
    assert "KD" not in yaml.safe_load((tools / rows[plain][1]).read_text())
    assert all("KD" in yaml.safe_load((tools / cfg_file).read_text()) for _, cfg_file in list(rows.values())[1:])


def test_a_distilled_student_is_told_its_teacher(quickstart):
    jobs, models = quickstart.trainings("pointpillar", seeds=2, parallel=2)
    teacher, students = jobs[0], jobs[1:]
    assert teacher.processes == 2 and "seed0" in teacher.checkpoint.parts
    assert len(students) == len(models) - 1 == 8
    assert len({job.checkpoint for job in jobs}) == len(jobs)
    for job in students:
        distilled = "train_kd.py" in job.command
        assert job.needs == ([teacher] if distilled else [])
        assert (str(teacher.checkpoint) in job.command) == distilled
