"""Simulated scenes of a plan: what lies in their folder already."""

import pytest

from pcdet.experiments.plans.scenes import prepare_scenes
from pcdet.registry import ConfigError
from pcdet.utils.places import ROOT


def test_a_real_data_set_in_the_folder_of_the_scenes_is_left_where_it_is(tmp_path):
    """As with --data_path of a real KITTI for a plan that simulates: it was renamed, and scenes took its place."""
    data = tmp_path / "kitti"
    (data / "training").mkdir(parents=True)
    scenes = {"frames": 2, "val-frames": 1, "seed": 0, "far": 15.0}
    with pytest.raises(ConfigError, match=r"kitti holds no simulated scenes.* a plan without DATA.SIMULATED"):
        prepare_scenes(data, scenes, ROOT / "tools")
    assert [path.name for path in tmp_path.iterdir()] == ["kitti"]
