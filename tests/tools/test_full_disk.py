"""train.py on a disk that fills up while it runs: a small file system in memory, where mounting one is allowed."""

import re
import signal
import subprocess

import pytest
from commands import start

FLAGS = ["--workers", "0", "--device", "cpu", "--seed", "3", "--logger_iter_interval", "1", "--skip_eval"]


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for 4 MiB, and what fills it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")

    def fill():
        with (folder / "filling").open("wb", buffering=0) as stream:
            for size in (1 << 16, 1 << 10, 1):
                try:
                    while stream.write(b"0" * size) == size:
                        pass
                except OSError:
                    continue

    yield folder, fill
    subprocess.run(["umount", str(folder)], check=True)


def train_on(small_disk, cfg_file, tools, epochs, then):
    """(exit status, output) of a training whose disk is full from its second epoch on; ``then`` is called there."""
    folder, fill = small_disk
    command = ["train.py", "--cfg_file", cfg_file, "--output_dir", folder / "out", *FLAGS, "--epochs", epochs]
    with start(command, cwd=tools) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if re.search(r"Train: +2/", line):
                fill()
                then(process)
                break
        rest = process.stdout.read()
        code = process.wait(120)
    return code, "".join(lines) + rest


def test_the_training_ends_and_the_missing_last_checkpoint_is_the_error(small_disk, cfg_file, tools):
    code, log = train_on(small_disk, cfg_file, tools, 12, lambda process: None)
    ckpt = small_disk[0] / "out/ckpt"
    assert code == 1 and "Traceback" not in log, log[-3000:]
    last = re.escape(str(ckpt / "checkpoint_epoch_12.pth"))
    assert re.search(rf"^WriteError: checkpoint {last} cannot be written: No space left on device", log, re.M)
    assert "Train:   12/12" in log and "Training goes on; the next checkpoint is another try" in log
    assert (
        log.count("log lines cannot be written to") == 1 and log.count("TensorBoard's scalars cannot be written") <= 1
    )
    assert (ckpt / "checkpoint_epoch_1.pth").is_file() and not list(ckpt.glob("*.partial-*"))


def test_a_signal_ends_it_at_once_and_says_what_could_not_be_saved(small_disk, cfg_file, tools):
    code, log = train_on(small_disk, cfg_file, tools, 2000, lambda process: process.send_signal(signal.SIGTERM))
    assert code == 1 and "Traceback" not in log, log[-3000:]
    assert re.search(
        r"^WriteError: checkpoint .*latest_model.pth cannot be written: No space left on device", log, re.M
    )
