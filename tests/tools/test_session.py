from argparse import Namespace

import pytest

from pcdet.registry import ConfigError


def test_a_data_sets_file_given_for_a_models_is_told_by_what_it_lacks(tool, tools):
    args = Namespace(cfg_file=str(tools / "cfgs/dataset_configs/kitti_dataset.yaml"), set_cfgs=None)
    with pytest.raises(ConfigError, match="CLASS_NAMES: missing; a model file such as") as caught:
        tool("_session").read_config(args, ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION"))
    assert len(caught.value.problems) == 4
