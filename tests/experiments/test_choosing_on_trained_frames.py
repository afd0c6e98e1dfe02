"""A search split that trainings have seen: refused where the plan chooses anything by it."""

import pickle

import pytest

from pcdet.experiments.plans.laboratory import Laboratory
from pcdet.experiments.plans.plan import (
    DataConfig,
    FinalistsConfig,
    Plan,
    SearchConfig,
    SplitConfig,
    StudentConfig,
    TeacherConfig,
)
from pcdet.registry import ConfigError
from pcdet.utils.places import ROOT

TOOLS = ROOT / "tools"
LAB = "cfgs/simulated_models/lab/pointpillar"
METHODS = {name: {"LOSSES": [{"NAME": "PivotalLogit"}]} for name in ("first", "second")}
NOTHING_TO_CHOOSE = FinalistsConfig(best=0, always=list(METHODS))


@pytest.fixture
def plan(tmp_path):
    """A plan with nothing to choose, whose search split is a part of the training split; changes are its arguments."""
    for number, name in enumerate(("train", "report")):
        infos = [{"point_cloud": {"lidar_idx": f"{number}{i}"}} for i in range(3)]
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(infos))

    def make(**changes):
        search = changes.pop("on", SplitConfig(infos=["train.pkl"], frames=2))
        parts = {"train": SplitConfig(infos=["train.pkl"]), "report": SplitConfig(infos=["report.pkl"])}
        content = {
            "data": DataConfig(path=str(tmp_path), search=search, **parts),
            "teachers": {"full": TeacherConfig(cfg=f"{LAB}.yaml", epochs=[4])},
            "students": {"4x": StudentConfig(cfg=f"{LAB}_student.yaml", teacher="full", epochs=4)},
            "methods": METHODS,
            "finalists": NOTHING_TO_CHOOSE,
        }
        return Plan(name="small", **{**content, **changes})

    return make


@pytest.mark.parametrize(
    "key, change",
    [
        ("SEARCH", {"search": SearchConfig(epochs=1)}),
        ("LENGTHS", {"lengths": [1.0, 2.0]}),
        ("FINALISTS.BEST", {"finalists": FinalistsConfig(best=1)}),
        ("TEACHERS.full.EPOCHS", {"teachers": {"full": TeacherConfig(cfg=f"{LAB}.yaml", epochs=[4, 8])}}),
    ],
)
def test_a_choice_on_frames_that_were_trained_on_is_refused_with_its_key(plan, tmp_path, key, change):
    message = rf"DATA.SEARCH: 2 of its frames, such as 00, are in DATA.TRAIN too; {key} would be decided"
    with pytest.raises(ConfigError, match=message):
        Laboratory(plan(**change), TOOLS, tmp_path / "output", None, None)


def test_where_nothing_is_chosen_the_search_split_may_be_trained_on(plan):
    assert plan().deciding_keys() == []
    assert plan(finalists=FinalistsConfig(best=2)).deciding_keys() == [], "both methods go on in any case"
