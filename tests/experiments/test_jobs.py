import logging
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from pcdet.engine.hooks import Logging
from pcdet.engine.trainer import Iteration
from pcdet.experiments.jobs import Job, clock, run_jobs, seconds_to_go

STILL_RUNNING = SimpleNamespace(poll=lambda: None)


def job(folder, name, code="", *, needs=(), work=1.0, checkpoint=True, facts=None):
    """A job that runs a line of Python, and then leaves its checkpoint."""
    path = folder / name / "checkpoint"
    if checkpoint:
        code = f"{code}\nopen({str(path)!r}, 'w').write('weights')"
    return Job(
        name=name, command=[sys.executable, "-c", code], cwd=folder, folder=folder / name, checkpoint=path,
        facts=facts or {}, work=work, needs=list(needs),
    )  # fmt: skip


def train_lines(*positions):
    return "\n".join(f"Train:    {e}/{n} (100%) [  {i}/{m} ( 25%)]  Loss: 1.0" for e, n, i, m in positions) + "\n"


def test_a_job_waits_for_what_it_needs(tmp_path):
    order = tmp_path / "order"
    write = f"import time; time.sleep({{}}); open({str(order)!r}, 'a').write('{{}}')"
    first = job(tmp_path, "first", write.format(0.3, "1"))
    second = job(tmp_path, "second", write.format(0, "2"), needs=[first])
    run_jobs([second, first], parallel=2)
    assert order.read_text() == "12"


def test_no_more_run_at_once_than_may(tmp_path):
    log = tmp_path / "times"
    code = f"import time; a = time.time(); time.sleep(0.2); open({str(log)!r}, 'a').write(f'{{a}} {{time.time()}}\\n')"
    run_jobs([job(tmp_path, str(i), code) for i in range(3)], parallel=1)
    spans = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


def test_a_failed_job_shows_the_end_of_its_log_and_stops_the_others(tmp_path):
    slow = job(tmp_path, "slow", "import time; time.sleep(60)")
    broken = job(tmp_path, "broken", "raise SystemExit('out of luck')")
    with pytest.raises(SystemExit, match="(?s)broken failed .exit 1.*out of luck"):
        run_jobs([slow, broken], parallel=2)
    assert slow.process.wait(timeout=10) != 0


def test_a_job_that_ends_well_without_its_checkpoint_has_failed(tmp_path):
    with pytest.raises(SystemExit, match="exit 0 without .*checkpoint"):
        run_jobs([job(tmp_path, "empty", checkpoint=False)], parallel=1)


def test_a_finished_job_is_not_run_again_and_says_so(tmp_path):
    said = []
    run_jobs([job(tmp_path, "a", facts={"seed": 0})], parallel=1)
    again = job(tmp_path, "a", "raise SystemExit('ran again')", facts={"seed": 0})
    run_jobs([again], parallel=1, say=said.append)
    assert again.process is None and "is there already" in said[0]


def test_a_finished_job_of_another_configuration_is_trained_anew_and_says_why(tmp_path):
    said = []
    run_jobs([job(tmp_path, "a", facts={"MODEL": {"WIDTH": 0.5}})], parallel=1)
    other = job(tmp_path, "a", facts={"MODEL": {"WIDTH": 0.25}})
    run_jobs([other], parallel=1, say=said.append)
    assert other.process is not None
    assert "a is trained anew: MODEL.WIDTH: 0.5, now 0.25" in said[0]
    assert (tmp_path / "a-old1" / "checkpoint").is_file()


def test_the_position_is_that_of_the_newest_training_line(tmp_path):
    running = job(tmp_path, "x")
    assert running.position() == (0, 0) and running.share() == 0
    running.folder.mkdir()
    running.process = STILL_RUNNING
    running.log.write_text("x" * 10000 + "\n" + train_lines((1, 2, 90, 100), (2, 2, 25, 100)) + "another line\n")
    assert running.position() == (125, 200)
    assert running.share() == pytest.approx(0.625)


def test_lines_of_an_earlier_call_do_not_count_and_a_resumed_training_is_timed_from_where_it_went_on(tmp_path):
    running = job(tmp_path, "x", work=2.0)
    running.folder.mkdir()
    earlier = train_lines((2, 2, 80, 100))
    running.log.write_text(earlier)
    running.process, running.begins_at, running.began = STILL_RUNNING, len(earlier), time.monotonic() - 10.0
    assert running.position() == (0, 0)
    with running.log.open("a") as log:
        log.write(train_lines((2, 2, 1, 100)))
    assert running.share() == pytest.approx(0.505) and running.share_before == pytest.approx(0.5)
    with running.log.open("a") as log:
        log.write(train_lines((2, 2, 20, 100)))
    # a tenth of it in ten seconds, four tenths to go
    assert seconds_to_go([running], [running], [], 1) == pytest.approx(40, abs=1)


def test_progress_is_read_from_the_line_that_training_logs(tmp_path, caplog):
    trainer = SimpleNamespace(
        epoch=2, it=129, epochs=4, iters_per_epoch=50, last=Iteration(), device=torch.device("cpu")
    )
    hook = Logging(logging.getLogger("training"), None, interval=1)
    hook.before_train(trainer)
    hook.before_epoch(trainer)
    trainer.it += 1
    with caplog.at_level(logging.INFO):
        hook.after_iteration(trainer)
    running = job(tmp_path, "x")
    running.folder.mkdir()
    running.process = STILL_RUNNING
    running.log.write_text(caplog.text)
    assert running.position() == (130, 200)


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, capfd):
    run_jobs([job(tmp_path, "a", "import time; time.sleep(1.2)")], parallel=1)
    shown = capfd.readouterr().err
    assert "\r" not in shown and shown.count("training") == 1


class Running(Job):
    """A job whose share and time are told."""

    def at(self, share, seconds):
        self.told, self.process, self.began = share, STILL_RUNNING, time.monotonic() - seconds
        return self

    def share(self):
        return getattr(self, "told", 0.0)


def fake(name, work, needs=()):
    return Running(name=name, command=[], cwd=None, folder=None, checkpoint=None, work=work, needs=list(needs))


def test_nothing_is_promised_before_the_first_iteration():
    teacher, student = fake("teacher", 2.0), fake("student", 1.0)
    assert seconds_to_go([teacher, student], [teacher], [student], 2) is None


def test_the_time_to_go_is_that_of_the_jobs_dealt_out_to_the_places():
    # The teacher did half of its 2 units in 100 s: 100 s a unit. Beside it 3 s of `alone`, then both students one
    # after the other, or side by side on the place that `alone` leaves and the teacher's.
    teacher = fake("teacher", 2.0).at(0.5, 100.0)
    alone = fake("alone", 0.5)
    students = [fake("a", 1.0, [teacher]), fake("b", 0.5, [teacher])]
    jobs = [teacher, alone, *students]
    # one place: teacher 100 s, then alone 50, a 100, b 50
    assert seconds_to_go(jobs, [teacher], [alone, *students], 1) == pytest.approx(300, abs=1)
    # two places: alone beside the teacher until 50 s; at 100 s a and b begin; a ends at 200
    assert seconds_to_go(jobs, [teacher], [alone, *students], 2) == pytest.approx(200, abs=1)


def test_a_job_that_runs_goes_on_at_its_own_speed():
    quick, slow = fake("quick", 1.0).at(0.5, 10.0), fake("slow", 1.0).at(0.25, 100.0)
    assert seconds_to_go([quick, slow], [quick, slow], [], 2) == pytest.approx(300, abs=1)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")])
def test_a_clock_reads_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text
