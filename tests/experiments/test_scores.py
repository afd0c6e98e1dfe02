"""What a plan needs of its data set."""

import math
import pickle
from types import SimpleNamespace

import pytest
from easydict import EasyDict

from pcdet.datasets.metrics import EvaluationMetrics, Metric, MetricTable
from pcdet.experiments.plans import scores
from pcdet.registry import ConfigError

SCORE = Metric(name="F", noun="F score", of_class="/F", of_all="F", factor=100)
TABLE = MetricTable(title="F", metrics=(SCORE,))


def test_a_data_set_that_cannot_score_single_frames_is_refused_before_anything_is_trained(monkeypatch, tmp_path):
    """It ended a plan with an AttributeError after all trainings."""

    class OwnDataset:
        def evaluation(self, det_annos, class_names, **kwargs): ...

    monkeypatch.setattr(scores, "build_dataset", lambda *args, **kwargs: OwnDataset())
    splits = SimpleNamespace(files={"report": ["r.pkl"]}, digests={"report": "0"}, frames={"report": {"1"}})
    cfg = EasyDict(DATA_CONFIG={"DATA_PATH": "data", "INFO_PATH": {}}, CLASS_NAMES=["Car"])
    with pytest.raises(ConfigError, match="need a data set with frame_scores.*KittiDataset.*got OwnDataset"):
        scores.Scorer(cfg, splits, "report", tmp_path)


@pytest.mark.parametrize("wrong", [{}, {"Car/F": math.nan}])
def test_an_evaluation_without_all_numbers_of_its_metrics_ends_the_plan_at_once_and_is_asked_again(
    wrong, monkeypatch, tmp_path
):
    """The main score was there, so that a missing class ended the plan with a KeyError after all trainings."""
    answers = [{"F": 0.5} | wrong, {"F": 0.5, "Car/F": 0.25}, None]

    class OwnDataset:
        METRICS = EvaluationMetrics(
            evaluation="own", scores=(SCORE,), noun="F", summary=TABLE, by_class=TABLE, best="F"
        )  # fmt: skip
        frame_scores = None

        def evaluation(self, det_annos, class_names, **kwargs):
            return "", answers.pop(0)

    monkeypatch.setattr(scores, "build_dataset", lambda *args, **kwargs: OwnDataset())
    splits = SimpleNamespace(files={"report": ["r.pkl"]}, digests={"report": "0"}, frames={"report": {"1"}})
    model = {"DATA_CONFIG": {"DATA_PATH": "data", "INFO_PATH": {}}, "CLASS_NAMES": ["Car"], "MODEL": {}}
    scorer = scores.Scorer(EasyDict(model), splits, "report", tmp_path)
    (tmp_path / "result.pkl").write_bytes(pickle.dumps([]))
    with pytest.raises(ConfigError, match=r"DATA.REPORT: OwnDataset's evaluation of .* got (none|nan) for Car/F; take"):
        scorer.score(tmp_path / "result.pkl")
    assert scorer.score(tmp_path / "result.pkl") == scorer.score(tmp_path / "result.pkl") == 50
    assert answers == [None], "what is whole is kept"
