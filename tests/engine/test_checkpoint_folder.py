"""The newest checkpoint of a folder, and which ones are deleted."""

import logging
import os
import shutil

import pytest

from pcdet.engine.checkpoint import save_checkpoint
from pcdet.engine.checkpoint_folder import checkpoint_epochs, newest_checkpoint, prune_checkpoints
from pcdet.utils.checkpoint_reader import CheckpointError


def write(folder, **files):
    """``e3=...`` is checkpoint_epoch_3.pth, others are by name; the later in the call, the older the file's time."""
    folder.mkdir(exist_ok=True)
    for age, (name, (epoch, it)) in enumerate(files.items()):
        file = f"checkpoint_epoch_{name[1:]}" if name[1:].isdecimal() else name
        path = save_checkpoint({"epoch": epoch, "it": it, "model_state": {}}, folder / file)
        os.utime(path, (1e9 - age, 1e9 - age))
    return folder


@pytest.mark.parametrize(
    "files, newest",
    [
        ({"e1": (1, 5), "e10": (10, 50), "e9": (9, 45)}, "checkpoint_epoch_10.pth"),
        ({"e2": (2, 10), "latest_model": (2, 13)}, "latest_model.pth"),
        ({"latest_model": (1, 7), "e3": (3, 15), "e2": (2, 10)}, "checkpoint_epoch_3.pth"),
        ({"latest_model": (0, 3)}, "latest_model.pth"),
        ({"checkpoint_best": (9, 45), "e3": (3, 15)}, "checkpoint_epoch_3.pth"),
    ],
)
def test_the_newest_is_that_of_most_epochs_and_iterations_whatever_the_files_times(tmp_path, files, newest):
    folder = write(tmp_path / "ckpt", **files)
    file, state = newest_checkpoint(folder)
    assert file.name == newest and (state["epoch"], state["it"]) == max(
        v for k, v in files.items() if k != "checkpoint_best"
    )
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copy)  # the times are those of copying
    assert newest_checkpoint(copy)[0].name == newest


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert newest_checkpoint(tmp_path / "none") == newest_checkpoint(tmp_path) == (None, None)
    (tmp_path / "checkpoint_best-old1.pth").touch()
    assert newest_checkpoint(tmp_path) == (None, None)


def test_a_damaged_newest_gives_way_to_the_newest_good_one_and_is_named(tmp_path, caplog):
    folder = write(tmp_path, e1=(1, 5), e2=(2, 10), e3=(3, 15), latest_model=(3, 17))
    for name in ("latest_model.pth", "checkpoint_epoch_3.pth"):
        (folder / name).write_bytes(b"cut short")
    file, state = newest_checkpoint(folder, logging.getLogger("toy"))
    assert file.name == "checkpoint_epoch_2.pth" and state["epoch"] == 2
    warned = [r.getMessage() for r in caplog.records]
    assert len(warned) == 2 and "latest_model.pth" in warned[0] and "checkpoint_epoch_3.pth" in warned[1]
    assert all(w.endswith(f"going on from {file} instead") for w in warned)


def test_damaged_checkpoints_alone_are_an_error_and_no_fresh_start(tmp_path):
    folder = write(tmp_path, e1=(1, 5))
    (folder / "checkpoint_epoch_1.pth").write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match="(?s)checkpoint_epoch_1.pth.*training cannot go on from .*give --ckpt"):
        newest_checkpoint(folder)
    (folder / "checkpoint_epoch_1.pth").unlink()
    write(folder, released=(1, 5))
    with pytest.raises(CheckpointError, match="holds released.pth, which training does not go on from by itself"):
        newest_checkpoint(folder)


def test_the_best_alone_as_a_kill_before_the_first_checkpoint_leaves_it_is_a_fresh_start(tmp_path):
    assert newest_checkpoint(write(tmp_path, checkpoint_best=(1, 5))) == (None, None)


def test_the_lowest_epochs_are_deleted_with_their_sums_and_never_later_ones_than_the_trainings(tmp_path):
    write(tmp_path, e10=(10, 50), e2=(2, 10), e9=(9, 45), e3=(3, 15), e4=(4, 20))
    gone = prune_checkpoints(tmp_path, 2, epoch=4)
    assert [p.name for p in gone] == ["checkpoint_epoch_2.pth"]
    assert list(checkpoint_epochs(tmp_path)) == [3, 4, 9, 10]
    assert not (tmp_path / "checkpoint_epoch_2.pth.sha256").exists()
    prune_checkpoints(tmp_path, 0, epoch=10)  # the last one always stays
    assert list(checkpoint_epochs(tmp_path)) == [10]
