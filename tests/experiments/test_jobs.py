import logging
import time
from types import SimpleNamespace

import pytest
import torch
from support.jobs import STILL_RUNNING, python_job, train_lines

from pcdet.engine.hooks import Logging
from pcdet.engine.trainer import Iteration
from pcdet.experiments.running.progress import seconds_to_go


def test_the_position_is_that_of_the_newest_training_line(tmp_path):
    running = python_job(tmp_path, "x")
    assert running.position() == (0, 0) and running.share() == 0
    running.folder.mkdir()
    running.process = STILL_RUNNING
    running.log.write_text("x" * 10000 + "\n" + train_lines((1, 2, 90, 100), (2, 2, 25, 100)) + "another line\n")
    assert running.position() == (125, 200)
    assert running.share() == pytest.approx(0.625)


def test_lines_of_an_earlier_call_do_not_count_and_a_resumed_training_is_timed_from_where_it_went_on(tmp_path):
    running = python_job(tmp_path, "x", work=2.0)
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


def test_a_training_that_is_first_looked_at_late_is_timed_from_its_first_line(tmp_path):
    running = python_job(tmp_path, "x", work=2.0)
    running.folder.mkdir()
    running.log.write_text(train_lines((1, 2, 1, 100), (1, 2, 60, 100), (1, 2, 100, 100)))
    running.process, running.began = STILL_RUNNING, time.monotonic() - 60.0
    # half of it in a minute
    assert seconds_to_go([running], [running], [], 1) == pytest.approx(60, abs=1)


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
    running = python_job(tmp_path, "x")
    running.folder.mkdir()
    running.process = STILL_RUNNING
    running.log.write_text(caplog.text)
    assert running.position() == (130, 200)


def test_a_command_without_training_lines_is_nothing_done_until_its_product_is_there(tmp_path):
    test = python_job(tmp_path, "test.py")
    test.folder.mkdir()
    test.process = STILL_RUNNING
    test.log.write_text("eval: 40/50\n")
    assert test.share() == 0
    test.product.write_text("{}")
    assert test.share() == 0  # it still runs
    test.process = None
    assert test.share() == 1
