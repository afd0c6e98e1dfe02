"""What a plan needs of its data set."""

from types import SimpleNamespace

import pytest
from easydict import EasyDict

from pcdet.experiments.plans import scores
from pcdet.registry import ConfigError


def test_a_data_set_that_cannot_score_single_frames_is_refused_before_anything_is_trained(monkeypatch, tmp_path):
    """It ended a plan with an AttributeError after all trainings."""

    class OwnDataset:
        def evaluation(self, det_annos, class_names, **kwargs): ...

    monkeypatch.setattr(scores, "build_dataset", lambda *args, **kwargs: OwnDataset())
    splits = SimpleNamespace(files={"report": ["r.pkl"]}, digests={"report": "0"}, frames={"report": {"1"}})
    cfg = EasyDict(DATA_CONFIG={"DATA_PATH": "data", "INFO_PATH": {}}, CLASS_NAMES=["Car"])
    with pytest.raises(ConfigError, match="need a data set with frame_scores.*KittiDataset.*got OwnDataset"):
        scores.Scorer(cfg, splits, "report", tmp_path)
