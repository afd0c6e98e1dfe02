"""Splits of a plan: parts of info files, and frames that must not be shared."""

import pickle

import pytest

from pcdet.experiments.plans.plan import DataConfig, SplitConfig
from pcdet.experiments.plans.splits import Splits
from pcdet.registry import ConfigError


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for name, first, count in (("train", 0, 20), ("val", 100, 10)):
        infos = [{"point_cloud": {"lidar_idx": f"{first + i:06d}"}} for i in range(count)]
        (root / f"{name}.pkl").write_bytes(pickle.dumps(infos))
    return root


def splits(root, **changes):
    """Those of a small plan, with other parts in place of its own."""
    parts = {
        "train": SplitConfig(infos=["train.pkl"]),
        "search": SplitConfig(infos=["val.pkl"], frames=4),
        "report": SplitConfig(infos=["val.pkl"], first=4),
    }
    return Splits(DataConfig(path="unused", **{**parts, **changes}), root, root.parent / "splits")


def test_whole_files_are_named_as_they_are_and_parts_get_files_of_their_own(root):
    made = splits(root)
    assert made.files["train"] == made.files["teacher_train"] == ["train.pkl"]
    assert made.files["search"] == ["../splits/search.pkl"]
    part = pickle.loads((root / made.files["report"][0]).read_bytes())
    assert [info["point_cloud"]["lidar_idx"] for info in part] == [f"{i:06d}" for i in range(104, 110)]
    assert made.counts == {"train": 20, "search": 4, "report": 6, "teacher_train": 20}
    assert sorted(path.name for path in root.iterdir()) == ["train.pkl", "val.pkl"], "the data folder stays as it is"


def test_parts_are_found_from_a_data_folder_that_is_a_link(root, tmp_path):
    link = tmp_path / "deeper" / "down" / "linked"
    link.parent.mkdir(parents=True)
    link.symlink_to(root)
    made = splits(link)
    assert len(pickle.loads((link / made.files["search"][0]).read_bytes())) == 4


def test_a_reported_frame_that_is_trained_on_or_chosen_by_is_refused_with_its_name(root):
    with pytest.raises(ConfigError, match="DATA.REPORT: 2 of its frames, such as 000018, are in DATA.TRAIN too"):
        splits(root, report=SplitConfig(infos=["train.pkl"], first=18))
    with pytest.raises(ConfigError, match="such as 000102, are in DATA.SEARCH too"):
        splits(root, report=SplitConfig(infos=["val.pkl"], first=2))


def test_frames_beyond_the_end_are_refused_with_both_numbers(root):
    with pytest.raises(ConfigError, match="DATA.SEARCH: frames 8 to 12 are asked for; the files hold 10"):
        splits(root, search=SplitConfig(infos=["val.pkl"], first=8, frames=4))


def test_a_missing_info_file_is_named(root):
    with pytest.raises(ConfigError, match=r"DATA.TRAIN.INFOS: .*none.pkl does not exist"):
        splits(root, train=SplitConfig(infos=["none.pkl"]))


def test_an_unlabelled_frame_that_another_split_has_is_refused_with_every_such_split(root):
    """A teacher that was trained on it repeats its labels, and students would be chosen by what they trained on."""
    parts = {
        "train": SplitConfig(infos=["train.pkl"], frames=4),
        "unlabelled": SplitConfig(infos=["train.pkl"], first=4),
    }
    assert splits(root, **parts).counts["unlabelled"] == 16
    with pytest.raises(
        ConfigError, match="DATA.UNLABELLED: 1 of its frames, such as 000019, are in DATA.TEACHER_TRAIN"
    ):
        splits(root, **parts, teacher_train=SplitConfig(infos=["train.pkl"], first=19))
    beyond = {"unlabelled": SplitConfig(infos=["train.pkl", "val.pkl"], first=3, frames=18)}
    with pytest.raises(ConfigError) as error:
        splits(root, **{**parts, **beyond})
    train, search = error.value.problems
    assert "1 of its frames, such as 000003, are in DATA.TRAIN too; students would train on them twice" in train
    assert "1 of its frames, such as 000100, are in DATA.SEARCH too" in search and "(FIRST, FRAMES)" in search


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ({"frame_id": 7, "lidar_path": "clouds/a.bin", "token": "b"}, "7"),
        ({"frame_id": "drive 7", "point_cloud": {"sample_idx": 3}}, "drive 7"),
        ({"lidar_path": "clouds/a.b.bin", "token": "b"}, "a.b"),
        ({"token": "b"}, "b"),
    ],
)
def test_infos_of_other_data_sets_name_their_frames(root, info, name):
    """A token alone, without a cloud's path, ended in a KeyError."""
    (root / "own.pkl").write_bytes(pickle.dumps([info]))
    assert splits(root, report=SplitConfig(infos=["own.pkl"])).frames["report"] == {name}


@pytest.mark.parametrize(("info", "got"), [({"cloud": "a.bin"}, r"dict \['cloud'\]"), ("a.bin", r"str \[\]")])
def test_a_frame_without_a_name_is_told_the_key_that_names_it(root, info, got):
    (root / "own.pkl").write_bytes(pickle.dumps([info]))
    with pytest.raises(ConfigError, match=rf"DATA.REPORT.INFOS: .*got {got}; write the name .* as frame_id"):
        splits(root, report=SplitConfig(infos=["own.pkl"]))
