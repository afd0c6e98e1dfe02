"""What the losses of one distillation step share, and what a new method gets from its base class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kd_pairs import LOGITS, MAP, PILLARS, detector, distil, wide_detector

from pcdet.models.kd import step as step_module
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.losses import FeatureLoss, FitNet, MapLoss, PointDistiller
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.schema import resolve
from pcdet.models.kd.step import Step
from pcdet.registry import KD_LOSSES, ConfigError, known_keys

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "KD.md"
GEOMETRY = Geometry(point_cloud_range=(0.0, -4.0, -3.0, 8.0, 4.0, 1.0), grid_size=(8, 8, 1))
FIT = {"NAME": "FitNet", "FEATURE": "pillar_features", "SAMPLE": {"NUM": 30}}


@pytest.fixture
def own_losses(monkeypatch):
    """A copy of the registry of losses, to add some to."""
    KD_LOSSES.names()
    monkeypatch.setattr(KD_LOSSES, "_classes", dict(KD_LOSSES._classes))


def count_calls(monkeypatch, name):
    """Arguments of every call of a function that ``step.py`` uses."""
    function, calls = getattr(step_module, name), []
    monkeypatch.setattr(step_module, name, lambda *args: calls.append(args) or function(*args))
    return calls


def pillars(cells, x):
    """Outputs of a detector with these pillars, [batch_idx, z, y, x]."""
    coords = torch.tensor(cells)
    batch = {"batch_size": 2, "voxel_coords": coords, "voxel_num_points": torch.arange(1.0, len(coords) + 1)}
    return ModelOutputs(None, batch, {"pillar_features": torch.tensor(x)}, GEOMETRY)


# ------------------------------------------------------------------------------------------------------ one match


def test_losses_on_the_same_taps_match_their_rows_once_a_step(batch, monkeypatch):
    distiller = distil(PILLARS, FIT, FIT | {"SAMPLE": {"NUM": 7}}, MAP)
    calls = count_calls(monkeypatch, "match_rows")
    distiller(batch)
    assert len(calls) == 2, "one for the pillars and one for the map"
    distiller(batch)
    assert len(calls) == 4, "a match is of one step"


def test_losses_with_the_same_measure_compute_it_once_and_draw_random_rows_each_for_itself(batch, monkeypatch):
    random = FIT | {"SAMPLE": {"NUM": 5, "BY": "random"}}
    distiller = distil(PILLARS, FIT, random, random)  # the first weighs its centres by points, too
    calls = count_calls(monkeypatch, "importance_scores")
    distiller(batch)
    assert [measure for measure, *_ in calls] == ["num_points", "random", "random"]


def test_importance_is_the_teachers_where_the_matched_rows_stand():
    student = pillars([[0, 0, 1, 2], [0, 0, 3, 3], [1, 0, 7, 7]], [[0.0], [0.0], [0.0]])
    teacher = pillars([[0, 0, 3, 3], [0, 0, 4, 4], [1, 0, 7, 7]], [[5.0], [6.0], [-7.0]])
    boxes = torch.zeros(2, 1, 8)
    boxes[1, 0] = torch.tensor([7.5, 3.5, 0, 1, 1, 1, 0, 1])
    step = Step(student, teacher, {"gt_boxes": boxes})
    taps = "pillar_features", "pillar_features"
    assert step.matched(*taps).teacher.x.tolist() == [[5.0], [-7.0]]
    assert step.importance(*taps, "num_points").tolist() == [1, 3]
    assert step.importance(*taps, "channel_max").tolist() == [5, -7]
    assert step.importance(*taps, "foreground").argmax() == 1
    with pytest.raises(ValueError, match="BY: foreground needs gt_boxes"):
        Step(student, teacher, {}).importance(*taps, "foreground")


def test_the_students_loss_and_the_weighted_terms_of_a_step_are_the_loss_of_a_forward(batch):
    distiller = distil(FIT | {"WEIGHT": 3.0, "SCHEDULE": {"NAME": "ramp", "EPOCHS": 4}}, MAP)
    distiller.set_epoch(1, 10)
    returned, step, _ = distiller.run_models(batch)
    terms = list(distiller.terms(step))
    assert [(term.label, term.weight) for term in terms] == [("FitNet", 1.5), ("PointDistiller", 1.0)]
    whole = returned[0]["loss"] + sum(term.weight * term.value for term in terms)
    assert distiller(batch)[0]["loss"].item() == pytest.approx(whole.item(), rel=1e-6)
    assert [term.label for term in distiller.terms(step, ["PointDistiller"])] == ["PointDistiller"]


# ----------------------------------------------------------------------------------------- what the bases provide


def test_a_loss_has_the_keys_of_its_base_class_and_its_own():
    common = {"WEIGHT", "SCHEDULE", "FEATURE", "TEACHER_FEATURE", "SAMPLE"}
    assert set(known_keys(FitNet)) == common
    assert set(known_keys(PointDistiller)) == common | {"PRESET", "GRAPH", "REWEIGHT", "ADAPTER", "DISTANCE"}
    assert {"WEIGHT", "SCHEDULE", "PIVOT"} <= set(known_keys(KD_LOSSES.get("PivotalLogit")))


def test_a_default_of_ones_own_replaces_the_base_classs(own_losses):
    @KD_LOSSES.register
    class Heavy(FitNet):
        def __init__(self, *, weight: float = 3.0, **common):
            super().__init__(weight=weight, **common)

    kd, _ = resolve({"LOSSES": [{"NAME": "Heavy", "FEATURE": "pillar_features"}]}, lambda tap: "pillar")
    assert kd.losses[0]["WEIGHT"] == 3.0 and kd.losses[0]["SAMPLE"]["BY"] == "num_points"
    assert distil(FIT | {"NAME": "Heavy"}).losses["Heavy"].weight == 3.0
    with pytest.raises(ConfigError, match=r"LOSSES\[0\].WEIGTH: Heavy has no such key; did you mean WEIGHT"):
        resolve({"LOSSES": [{"NAME": "Heavy", "FEATURE": "x", "WEIGTH": 1.0}]}, lambda tap: "map")


def test_frames_are_averaged_and_rows_within_them(own_losses):
    @KD_LOSSES.register
    class Difference(FeatureLoss):
        def compare_rows(self, student_rows, teacher_rows):
            return (teacher_rows - student_rows).sum(dim=1)

    cells = [[0, 0, 1, 2], [0, 0, 3, 3], [0, 0, 3, 4], [1, 0, 7, 7]]
    student, teacher = pillars(cells, [[0.0]] * 4), pillars(cells, [[1.0], [2.0], [3.0], [10.0]])
    loss = distil({"NAME": "Difference", "FEATURE": "pillar_features"}).losses["Difference"]
    value, logs = loss(Step(student, teacher, {}))
    assert value.item() == (2 + 10) / 2
    assert logs["nodes"] == 2 and logs["target_var"] == np.var([1, 2, 3, 10])


@pytest.mark.parametrize("base", [FeatureLoss, MapLoss])
def test_a_base_class_alone_is_no_loss(base):
    method = base.compare_rows if base is FeatureLoss else base.compare_maps
    with pytest.raises(NotImplementedError):
        method(None, torch.zeros(1, 1), torch.zeros(1, 1))


# ------------------------------------------------------------------------------------------------ the guide's losses


@pytest.fixture
def guides_losses(own_losses):
    """The classes of docs/KD.md's section on a loss of one's own."""
    section = GUIDE.read_text(encoding="utf-8").partition("## Adding a loss")[2].partition("\n## ")[0]
    blocks = [block.partition("```")[0] for block in section.split("```python\n")[1:]]
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    return names


def test_the_guides_loss_on_rows_trains(batch, guides_losses):
    node = {"NAME": "CosineDistance", "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 40}}
    distiller = distil(node, student=detector(), teacher=detector(seed=3))
    ret_dict, tb_dict, _ = distiller(batch)
    ret_dict["loss"].backward()
    assert 0 < tb_dict["kd/CosineDistance"] < 2 and tb_dict["kd/CosineDistance/nodes"] == 40
    assert distil(node, student=detector(3), teacher=detector(3), TEACHER={"MODE": "train"})(batch)[1][
        "kd/CosineDistance"
    ] == pytest.approx(0, abs=1e-6)


def test_the_guides_loss_on_maps_follows_its_formula(batch, guides_losses):
    node = {"NAME": "MapAttention", "FEATURE": "spatial_features_2d", "POWER": 3.0, "WEIGHT": 2.0}
    distiller = distil(node, student=detector(), teacher=wide_detector())
    seen = []
    for model in (distiller.student, distiller.teacher):
        model.backbone_2d.register_forward_hook(lambda _m, _a, out: seen.append(out["spatial_features_2d"].detach()))
    value = distiller(batch)[1]["kd/MapAttention"]
    attention = []
    for values in seen:
        flat = (np.abs(values.double().numpy()) ** 3).mean(axis=1).reshape(len(values), -1)
        attention.append(flat / np.sqrt((flat**2).sum(axis=1, keepdims=True)))
    assert value == pytest.approx(2 * ((attention[0] - attention[1]) ** 2).mean(), rel=1e-4) and value > 0


def test_a_loss_on_maps_refuses_rows_and_other_cells(batch, guides_losses):
    node = {"NAME": "MapAttention", "FEATURE": "pillar_features"}
    with pytest.raises(ConfigError, match=r"MapAttention compares maps, but tap 'pillar_features' is a set"):
        distil(node)
    distiller = distil(node | {"FEATURE": "spatial_features", "TEACHER_FEATURE": "spatial_features_2d"})
    with pytest.raises(ValueError, match=r"cell by cell.*'spatial_features'.*\(1, 64, 64\).*\(1, 32, 32\).*same range"):
        distiller(batch)


def test_a_schedule_and_a_weight_are_every_losss(batch, guides_losses):
    node = {"NAME": "MapAttention", "FEATURE": "spatial_features_2d"}
    distiller = distil(node | {"SCHEDULE": {"NAME": "stop", "EPOCHS": 1}}, LOGITS)
    distiller.set_epoch(1, 2)
    assert distiller(batch)[1]["kd/MapAttention"] == 0
