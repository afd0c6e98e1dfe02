import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pcdet.utils import folder_lock
from pcdet.utils.folder_lock import FolderInUseError, FolderLock
from pcdet.utils.safe_files import WriteError

HOLD = """
import sys, time
from pcdet.utils.folder_lock import FolderLock
lock = FolderLock(sys.argv[1], advice="", inheritable=len(sys.argv) > 2)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_told_who_the_first_is_and_what_to_do(tmp_path, holder):
    with pytest.raises(FolderInUseError) as caught:
        FolderLock(tmp_path, advice="wait for it")
    for part in (str(tmp_path), f"process {holder.pid} on ", "since ", "wait for it"):
        assert part in str(caught.value)


def test_a_killed_holder_holds_nothing(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    FolderLock(tmp_path, advice="").release()


def test_one_process_cannot_hold_a_folder_twice_but_again_after_release(tmp_path):
    with FolderLock(tmp_path / "new", advice=""):
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()} "):
            FolderLock(tmp_path / "new", advice="")
    FolderLock(tmp_path / "new", advice="").release()


@pytest.mark.parametrize("inheritable", [True, False])
def test_a_child_keeps_the_lock_of_a_dead_parent_only_if_told_to(tmp_path, inheritable):
    lock = FolderLock(tmp_path, advice="", inheritable=inheritable)
    child = subprocess.Popen(
        [sys.executable, "-c", "print('runs', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False,
    )  # fmt: skip
    assert child.stdout.readline() == b"runs\n"  # what is not inherited is closed by now
    lock.release()
    try:
        if inheritable:
            with pytest.raises(FolderInUseError):
                FolderLock(tmp_path, advice="")
        else:
            FolderLock(tmp_path, advice="").release()
    finally:
        child.communicate(b"\n")


def test_a_file_system_without_locks_warns_and_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    with FolderLock(tmp_path, advice=""):
        assert "No locks available" in caplog.text


def test_a_full_disk_keeps_only_the_name_from_being_told(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode, **_: Full(path, mode))
        lock = FolderLock(tmp_path, advice="")
    with pytest.raises(FolderInUseError, match="a process that has not said its name"):
        FolderLock(tmp_path, advice="")
    lock.release()


def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        WriteError, match="the lock .*file/below/.lock cannot be made: Not a directory; make room, or give"
    ):
        FolderLock(tmp_path / "file/below", advice="")


def test_a_command_with_bytes_that_are_no_text_is_described(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "caf\udce9"])
    with FolderLock(tmp_path, advice=""), pytest.raises(FolderInUseError, match=r"caf\\udce9"):
        FolderLock(tmp_path, advice="")


def test_a_forked_process_does_not_outlive_its_parents_lock(tmp_path):
    """As a loader's worker that has not noticed yet that training was killed."""
    lock = FolderLock(tmp_path, advice="")
    (wake, waker), (heard, says) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(waker)
        os.write(says, b"runs")
        os.read(wake, 1)
        os._exit(0)
    try:
        assert os.read(heard, 4) == b"runs"
        with pytest.raises(FolderInUseError):  # the child has let go of it, the parent has not
            FolderLock(tmp_path, advice="")
        lock._file.close()  # as the system does for a killed process
        FolderLock(tmp_path, advice="").release()
    finally:
        os.close(waker)
        os.waitpid(child, 0)
        for end in (wake, heard, says):
            os.close(end)
