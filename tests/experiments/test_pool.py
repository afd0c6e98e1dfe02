import re
import shlex
import subprocess

import pytest
from support.jobs import python_job

from pcdet.experiments.running.places import core_places
from pcdet.experiments.running.pool import run_jobs
from pcdet.experiments.running.progress import PlanProgress


def test_a_job_waits_for_what_it_needs(tmp_path):
    order = tmp_path / "order"
    write = f"import time; time.sleep({{}}); open({str(order)!r}, 'a').write('{{}}')"
    first = python_job(tmp_path, "first", write.format(0.3, "1"))
    second = python_job(tmp_path, "second", write.format(0, "2"), needs=[first])
    run_jobs([second, first], core_places(2))
    assert order.read_text() == "12"


def test_no_more_run_at_once_than_there_are_places(tmp_path):
    log = tmp_path / "times"
    code = f"import time; a = time.time(); time.sleep(0.2); open({str(log)!r}, 'a').write(f'{{a}} {{time.time()}}\\n')"
    run_jobs([python_job(tmp_path, str(i), code) for i in range(3)], core_places(1))
    spans = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


def test_a_failed_job_shows_the_end_of_its_log_and_stops_the_others(tmp_path):
    slow = python_job(tmp_path, "slow", "import time; time.sleep(60)")
    broken = python_job(tmp_path, "broken", "raise SystemExit('out of luck')")
    with pytest.raises(SystemExit, match="(?s)broken failed .exit 1.*out of luck"):
        run_jobs([slow, broken], core_places(2))
    assert slow.process.wait(timeout=10) != 0


def test_what_stops_beside_a_failed_job_saves_its_state(tmp_path):
    saving = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    pathlib.Path('saved').write_text('state')\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\npathlib.Path('ready').touch()\ntime.sleep(60)"
    )
    wait = "import pathlib, time\nwhile not pathlib.Path('ready').exists(): time.sleep(0.05)\nraise SystemExit(3)"
    jobs = [python_job(tmp_path, "slow", saving), python_job(tmp_path, "broken", wait)]
    with pytest.raises(SystemExit, match="broken failed .exit 3"):
        run_jobs(jobs, core_places(2))
    assert (tmp_path / "saved").read_text() == "state"


def test_the_command_of_a_failed_job_repeats_the_failure_when_it_is_typed(tmp_path):
    broken = python_job(tmp_path, "it's broken", "raise SystemExit('one line\\nand another')")
    with pytest.raises(SystemExit) as failure:
        run_jobs([broken], core_places(1))
    typed = re.search(r"its command:\n(cd .*)\nthe end of", str(failure.value), re.DOTALL)[1]
    again = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "one line\nand another" in again.stderr
    assert shlex.split(typed)[:2] == ["cd", str(tmp_path)]


def test_a_job_that_ends_well_without_its_product_has_failed(tmp_path):
    with pytest.raises(SystemExit, match="exit 0 without .*product"):
        run_jobs([python_job(tmp_path, "empty", product=False)], core_places(1))


def test_a_finished_job_is_not_run_again_and_says_so(tmp_path):
    said = []
    run_jobs([python_job(tmp_path, "a", facts={"seed": 0})], core_places(1))
    again = python_job(tmp_path, "a", "raise SystemExit('ran again')", facts={"seed": 0})
    run_jobs([again], core_places(1), say=said.append)
    assert again.process is None and "is there already" in said[0]


@pytest.mark.parametrize(("number", "lines"), [(8, 8), (9, 1)])
def test_many_finished_jobs_are_counted_in_one_line(tmp_path, number, lines):
    jobs = [python_job(tmp_path, str(i)) for i in range(number)]
    for job in jobs:
        job.folder.mkdir()
        job.product.touch()
        (job.folder / "job.json").write_text("{}")
    said = []
    run_jobs([*jobs, python_job(tmp_path, "new")], core_places(1), say=said.append)
    there = [line for line in said if "there already" in line]
    assert len(there) == lines
    assert lines > 1 or there == ["  9 of 10 are there already"]


def test_a_finished_job_of_another_configuration_is_done_anew_and_says_why(tmp_path):
    said = []
    run_jobs([python_job(tmp_path, "a", facts={"MODEL": {"WIDTH": 0.5}})], core_places(1))
    other = python_job(tmp_path, "a", facts={"MODEL": {"WIDTH": 0.25}})
    run_jobs([other], core_places(1), say=said.append)
    assert other.process is not None
    assert "a is done anew: MODEL.WIDTH: 0.5, now 0.25" in said[0]
    assert (tmp_path / "a-old1" / "product").is_file()


def test_a_job_whose_need_nobody_makes_is_an_error_that_names_both(tmp_path):
    teacher = python_job(tmp_path, "teacher")
    student = python_job(tmp_path, "student", needs=[teacher])
    with pytest.raises(SystemExit, match="student can never begin: it needs teacher"):
        run_jobs([student], core_places(1))


def test_jobs_that_need_each_other_are_an_error(tmp_path):
    one = python_job(tmp_path, "one")
    two = python_job(tmp_path, "two", needs=[one])
    one.needs = [two]
    with pytest.raises(SystemExit, match="one can never begin: it needs two"):
        run_jobs([one, two], core_places(1))


def test_a_stage_counts_as_done_for_the_stages_behind_it(tmp_path):
    with PlanProgress(later_work=6.0) as whole:
        run_jobs([python_job(tmp_path, "a", work=2.0)], core_places(1), whole)
        assert whole.done_work == 2.0 and whole.work == 2.0 and whole.seconds > 0
        assert whole.percent([]) == pytest.approx(25.0)
        whole.later_work = 0.0
        run_jobs([python_job(tmp_path, "b", work=6.0)], core_places(1), whole)
    assert whole.percent([]) == 100.0


def test_a_stage_that_failed_does_not_count_as_done(tmp_path):
    whole = PlanProgress()
    with pytest.raises(SystemExit):
        run_jobs([python_job(tmp_path, "a", "raise SystemExit(1)")], core_places(1), whole)
    assert whole.done_work == 0.0


def test_without_jobs_nothing_happens():
    run_jobs([], core_places(1))
