import time

import pytest
from support.jobs import python_job, told_job

from pcdet.experiments.running.places import core_places
from pcdet.experiments.running.pool import run_jobs
from pcdet.experiments.running.progress import PlanProgress, seconds_to_go


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, capfd):
    run_jobs([python_job(tmp_path, "a", "import time; time.sleep(1.2)")], core_places(1))
    shown = capfd.readouterr().err
    assert "\r" not in shown and shown.count("training") == 1


def test_the_line_says_what_is_going_on_and_names_a_few_of_many_jobs(capfd):
    jobs = [told_job(f"job{i}", 1.0).at(0.5, 10.0) for i in range(9)]
    for job in jobs:
        job.position = lambda: (0, 0)
    for job in jobs[6:]:
        job.queued = True
    PlanProgress(label="screening").show(jobs, jobs, [], 9)
    line = capfd.readouterr().err
    assert line.startswith("screening  50%")
    assert "job3 begins  and 2 more  3 queued" in line and "job4" not in line


def test_nothing_is_promised_before_the_first_iteration():
    teacher, student = told_job("teacher", 2.0), told_job("student", 1.0)
    assert seconds_to_go([teacher, student], [teacher], [student], 2) is None


def test_the_time_to_go_is_that_of_the_jobs_dealt_out_to_the_places():
    # The teacher did half of its 2 units in 100 s: 100 s a unit. Beside it 3 s of `alone`, then both students one
    # after the other, or side by side on the place that `alone` leaves and the teacher's.
    teacher = told_job("teacher", 2.0).at(0.5, 100.0)
    alone = told_job("alone", 0.5)
    students = [told_job("a", 1.0, [teacher]), told_job("b", 0.5, [teacher])]
    jobs = [teacher, alone, *students]
    # one place: teacher 100 s, then alone 50, a 100, b 50
    assert seconds_to_go(jobs, [teacher], [alone, *students], 1) == pytest.approx(300, abs=1)
    # two places: alone beside the teacher until 50 s; at 100 s a and b begin; a ends at 200
    assert seconds_to_go(jobs, [teacher], [alone, *students], 2) == pytest.approx(200, abs=1)


def test_jobs_of_one_name_are_told_apart():
    twins = [told_job("student", 1.0).at(0.5, 10.0), told_job("student", 1.0)]
    # the first has 10 s to go; the second takes 20 s behind it
    assert seconds_to_go(twins, twins[:1], twins[1:], 1) == pytest.approx(30, abs=1)


def test_a_job_that_runs_goes_on_at_its_own_speed():
    quick, slow = told_job("quick", 1.0).at(0.5, 10.0), told_job("slow", 1.0).at(0.25, 100.0)
    assert seconds_to_go([quick, slow], [quick, slow], [], 2) == pytest.approx(300, abs=1)


def test_the_time_to_go_counts_the_stages_behind_and_the_speed_of_those_before():
    # earlier stages: 10 units in 100 s. This one has 4 units on 2 places; 6 units come later.
    jobs = [told_job("a", 2.0), told_job("b", 2.0)]
    whole = PlanProgress(later_work=6.0, seconds=100.0, work=10.0)
    assert seconds_to_go(jobs, [], jobs, 2, whole) == pytest.approx(20 + 30)


def test_the_percentage_is_that_of_the_whole_plan():
    whole = PlanProgress(done_work=3.0, later_work=3.0)
    assert whole.percent([told_job("a", 4.0).at(0.5, 1.0)]) == pytest.approx(50.0)


def test_a_thousand_jobs_are_dealt_out_while_nobody_waits():
    teacher = told_job("teacher", 1.0).at(0.5, 10.0)
    students = [told_job(str(i), 1.0, [teacher]) for i in range(999)]
    begin = time.process_time()
    # at 10 s eight places begin 999 students of 20 s
    assert seconds_to_go([teacher, *students], [teacher], students, 8) == pytest.approx(10 + 125 * 20, rel=0.1)
    assert time.process_time() - begin < 5.0  # 0.01 s here; minutes where every pair of jobs is compared
