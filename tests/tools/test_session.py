from argparse import Namespace
from types import SimpleNamespace

import pytest

from pcdet.registry import ConfigError
from pcdet.utils.weights import MisfitError


def test_a_data_sets_file_given_for_a_models_is_told_by_what_it_lacks(tool, tools):
    args = Namespace(cfg_file=str(tools / "cfgs/dataset_configs/kitti_dataset.yaml"), set_cfgs=None)
    with pytest.raises(ConfigError, match="CLASS_NAMES: missing; a model file such as") as caught:
        tool("_session").read_config(args, ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION"))
    assert len(caught.value.problems) == 4


def test_a_run_keeps_its_configuration_and_can_be_repeated_from_that_copy(tool, tmp_path):
    (tmp_path / "mine.yaml").write_text("A: 1\n")
    out = tmp_path / "out"
    out.mkdir()
    session = SimpleNamespace(
        dist=SimpleNamespace(is_main=True), output_dir=out, logger=None, start_log=lambda file: None
    )
    for cfg_file in (tmp_path / "mine.yaml", out / "mine.yaml"):
        session.args = Namespace(cfg_file=str(cfg_file))
        tool("train").start(session)
        assert (out / "mine.yaml").read_text() == "A: 1\n" and (out / "ckpt").is_dir()


@pytest.mark.parametrize("allowed", [False, True])
def test_a_misfit_ends_with_the_flag_that_takes_what_fits_unless_it_was_given(tool, allowed):
    class Detector:
        def load_params_from_file(self, filename, allow_partial, **_):
            raise MisfitError(f"{filename} is not for this Detector")

    with pytest.raises(MisfitError) as caught:
        tool("_session").load_detector_weights(Detector(), Namespace(allow_partial=allowed), None, "a.pth")
    said = "a.pth is not for this Detector"
    assert str(caught.value) == (said if allowed else f"{said}\n--allow_partial takes what fits")
