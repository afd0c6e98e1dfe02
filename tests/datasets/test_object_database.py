"""A database of objects that is made again: its list and its points agree at every moment, whatever stops the run."""

from pathlib import Path

import numpy as np
import pytest
from support import kitti_files, nuscenes_files

from pcdet.datasets import object_database
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.datasets.object_database import ObjectDatabase
from pcdet.utils import safe_pickle


def contents(folder: Path, listing: Path) -> dict[str, bytes]:
    """The list and every file that lies in the folder."""
    return {file.name: file.read_bytes() for file in [listing, *folder.iterdir()]}


def repaint(points: np.ndarray) -> np.ndarray:
    """As many points, of which each is another: the files of the objects keep their sizes."""
    points[:, 3] = 9.0
    return points


# ------------------------------------------------------------------------------------------------------- the data sets


@pytest.fixture(params=["nuscenes", "kitti"])
def prepared(request):
    """(makes the database, its folder, its list, clouds of the training split) of a folder that has a database."""
    if request.param == "nuscenes":
        root = request.getfixturevalue("release")
        home, sweeps = root / nuscenes_files.VERSION, nuscenes_files.SWEEPS

        def make():
            create_nuscenes_infos(root, nuscenes_files.VERSION, sweeps, workers=0)

        folder, listing = f"gt_database_{sweeps}sweeps_withvelo", f"nuscenes_dbinfos_{sweeps}sweeps_withvelo.pkl"
        clouds, columns = sorted(home.glob("samples/LIDAR_TOP/scene-0061*")), 5
    else:
        home = request.getfixturevalue("raw_kitti")

        def make():
            create_kitti_infos(kitti_files.dataset_cfg(), CLASS_NAMES, home, workers=0)

        folder, listing, columns = "gt_database", "kitti_dbinfos_train.pkl", 4
        clouds = sorted(home.glob("training/velodyne/*.bin"))[:3]
    make()
    for cloud in clouds:
        repaint(np.fromfile(cloud, dtype=np.float32).reshape(-1, columns)).tofile(cloud)
    return make, home / folder, home / listing, clouds


def test_a_damaged_cloud_leaves_the_database_as_it_was(prepared):
    make, folder, listing, clouds = prepared
    before = contents(folder, listing)
    points = np.fromfile(clouds[-1], dtype=np.float32)
    np.full_like(points, np.nan).tofile(clouds[-1])
    with pytest.raises(DataError, match="NaN"):
        make()
    assert contents(folder, listing) == before
    points.tofile(clouds[-1])
    make()
    after = contents(folder, listing)
    assert after.keys() == before.keys() and after[listing.name] == before[listing.name]
    changed = [name for name in before if after[name] != before[name]]
    assert changed and all(np.frombuffer(after[name], dtype=np.float32)[3] == 9.0 for name in changed)
    assert not [file for file in folder.parent.iterdir() if file.name.startswith(folder.name + ".")]


def test_a_run_without_a_change_gives_the_same_files(prepared):
    make, folder, listing, _ = prepared
    make()
    before = contents(folder, listing)
    make()
    assert contents(folder, listing) == before


# ---------------------------------------------------------------------------------------------- stopped at every moment


def write_objects(database: ObjectDatabase, content: bytes) -> dict[str, list[dict]]:
    for name in "ab":
        (database.open_workplace() / f"{name}.bin").write_bytes(content)
    return {"Car": [{"path": f"objects/{name}.bin", "content": content} for name in "ab"]}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("stop_at", range(1, 6))
def test_a_database_that_is_stopped_while_it_changes_places_is_old_new_or_not_listed(
    tmp_path, monkeypatch, stop_at, after, linked
):
    if linked:  # to a larger disk
        (tmp_path / "disk" / "objects").mkdir(parents=True)
        (tmp_path / "objects").symlink_to(tmp_path / "disk" / "objects")
    database = ObjectDatabase(tmp_path / "objects", tmp_path / "list.pkl")
    database.replace(write_objects(database, b"old"))
    new, done = write_objects(database, b"new"), []

    def stopping(operation):
        def stopped(*args, **kwargs):
            done.append(operation)
            if len(done) == stop_at and not after:
                raise KeyboardInterrupt
            operation(*args, **kwargs)
            if len(done) == stop_at and after:
                raise KeyboardInterrupt

        return stopped

    with monkeypatch.context() as patch:
        patch.setattr(object_database.safe_files, "remove", stopping(object_database.safe_files.remove))
        patch.setattr(object_database.safe_pickle, "dump", stopping(object_database.safe_pickle.dump))
        patch.setattr(object_database.shutil, "rmtree", stopping(object_database.shutil.rmtree))
        patch.setattr(Path, "rename", stopping(Path.rename))
        with pytest.raises(KeyboardInterrupt):
            database.replace(new)
    if database.listing.exists():
        for entry in safe_pickle.load(database.listing)["Car"]:
            assert (tmp_path / entry["path"]).read_bytes() == entry["content"]
    is_done = database.listing.exists() and safe_pickle.load(database.listing) == new
    found = [file.name for file in database.open_workplace().iterdir() if file.read_bytes() == b"new"]
    assert sorted(found) == ([] if is_done else ["a.bin", "b.bin"])  # what a run that goes on finds
    database.replace(write_objects(database, b"newer"))
    assert {file.read_bytes() for file in database.folder.iterdir()} == {b"newer"}
    assert safe_pickle.load(database.listing)["Car"][0]["content"] == b"newer"
    home = tmp_path / "disk" if linked else tmp_path
    assert not [file for file in home.iterdir() if file.suffix in (".new", ".old")]
