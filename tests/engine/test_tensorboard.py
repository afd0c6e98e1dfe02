"""Event files for TensorBoard, and what becomes of a training when they cannot be written."""

import errno
import logging
import os
import signal

import pytest
from support.trainers import make_trainer

from pcdet.engine.hooks import Checkpoint, Hook, Logging
from pcdet.engine.tensorboard import TensorBoard
from pcdet.engine.trainer import Interrupted


def events(folder):
    """All events of a folder, read by tensorboardX's definition of the format: length, its sum, data, its sum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_scalars_are_written_and_a_resume_hides_what_is_trained_anew(tmp_path):
    first = TensorBoard(tmp_path / "tb")
    first.add_scalar("train/loss", 1.5, 1)
    first.close()
    TensorBoard(tmp_path / "tb", purge_step=7).close()
    version, scalar, _, start = events(tmp_path / "tb")
    assert version.file_version == "brain.Event:2"
    assert (scalar.step, scalar.summary.value[0].tag, scalar.summary.value[0].simple_value) == (1, "train/loss", 1.5)
    assert start.step == 7 and start.session_log.status == 1  # START: TensorBoard drops events from this step on


class FullAfter:
    """A record file on a disk that is full after so many records."""

    def __init__(self, records):
        self.left = records

    def __call__(self, path):
        return self

    def write(self, data):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self):
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    close = flush


@pytest.mark.parametrize("records", [0, 3])
def test_a_full_disk_is_warned_of_once_and_ends_the_scalars_not_the_training(tmp_path, caplog, records):
    caplog.set_level(logging.WARNING, "pcdet")
    writer = TensorBoard(tmp_path / "tb", open_file=FullAfter(records))
    trainer = make_trainer([Checkpoint(tmp_path), Logging(logging.getLogger("pcdet"), writer)], epochs=4)
    trainer.run()
    writer.close()
    warned = [r.getMessage() for r in caplog.records]
    assert trainer.epoch == 4 and len(warned) == 1
    assert f"cannot be written to {tmp_path / 'tb'}: No space left on device" in warned[0]


def test_a_signal_still_saves_when_scalars_cannot_be_written(tmp_path):
    class Stop(Hook):
        def after_iteration(self, trainer):
            if trainer.it == 18:  # more scalars than any queue holds
                os.kill(os.getpid(), signal.SIGTERM)

    writer = TensorBoard(tmp_path / "tb", open_file=FullAfter(2))
    with pytest.raises(Interrupted):
        make_trainer([Checkpoint(tmp_path), Logging(logging.getLogger("pcdet"), writer), Stop()], epochs=4).run()
    assert (tmp_path / "latest_model.pth").is_file()


def test_hooks_that_only_report_do_not_end_a_training_and_others_do(caplog):
    class Fails(Hook):
        def after_iteration(self, trainer):
            raise OSError(errno.ENOSPC, "No space left on device")

    class Reports(Fails):
        only_reports = True

    trainer = make_trainer([Reports()])
    trainer.run()
    assert trainer.epoch == 2
    assert [r.getMessage() for r in caplog.records] == [
        "Reports failed, training goes on without it: [Errno 28] No space left on device"
    ]
    with pytest.raises(OSError, match="No space left"):
        make_trainer([Fails()]).run()
