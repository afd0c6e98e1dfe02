"""The ``KD:`` block: what is accepted, what a preset stands for, and how a distiller comes out of it."""

import gc
import logging
import re
import weakref
from pathlib import Path

import pytest
import torch
import yaml
from easydict import EasyDict
from kd_pairs import FACTS, LOGITS, MAP, PILLARS, detector, distil, kd_terms, train, wide_detector
from support.distillers import distiller_of

from pcdet.config import cfg_from_yaml_file
from pcdet.engine.checkpoint import checkpoint_state, load_checkpoint
from pcdet.models.description import describe
from pcdet.models.kd import build_distiller, schema
from pcdet.models.kd.presets import POINT_DISTILLER
from pcdet.models.kd.schedule import ScheduleConfig
from pcdet.models.kd.schema import KDConfig
from pcdet.registry import KD_LOSSES, ConfigError, check_node, parse_node


def kind_of(tap):
    """What a tap is on whichever of the three detectors has it."""
    files = ("pointpillar", "second", "pointrcnn")
    found = [describe(cfg_from_yaml_file(f"cfgs/kitti_models/{f}.yaml", EasyDict()).MODEL).find(tap) for f in files]
    return next((spec.kind for spec in found if spec is not None), "map")


def resolve(node):
    return schema.resolve(node, kind_of)


def block(*losses, **keys):
    return {"TEACHER": {"CFG": "teacher.yaml", "CKPT": "teacher.pth"}, "LOSSES": list(losses), **keys}


def test_without_a_block_there_is_no_distiller():
    assert build_distiller(EasyDict(MODEL={}), detector(), FACTS, teacher=None) is None


@pytest.mark.parametrize(
    "node, message",
    [
        (block(), "KD.LOSSES: missing or empty; name at least one, begin with slices of the teacher"),
        (block(PILLARS) | {"LOSES": []}, "KD.LOSES: KDConfig has no such key; did you mean LOSSES?"),
        (block({"NAME": "PointDistiler"}), "unknown KD loss 'PointDistiler'; did you mean PointDistiller?"),
        (block({"NAME": "PointDistiller"}), r"KD.LOSSES\[0\].FEATURE: missing"),
        (block(PILLARS | {"SAMPLE": {"NUMBER": 3}}), r"KD.LOSSES\[0\].SAMPLE.NUMBER: .*did you mean NUM"),
        (block(PILLARS | {"SAMPLE": {"NUM": 0}}), r"KD.LOSSES\[0\].SAMPLE.NUM: must be at least 1, got 0"),
        (block(PILLARS | {"GRAPH": {"K": 0}}), r"KD.LOSSES\[0\].GRAPH.K: must be at least 1, got 0"),
        (block(PILLARS | {"GRAPH": {"CANDIDATES": 0}}), "CANDIDATES: must be at least 1 or null, got 0"),
        (block(PILLARS | {"GRAPH": {"SPACE": "polar"}}), r"KD.LOSSES\[0\].GRAPH.SPACE: must be one of"),
        (block(PILLARS | {"REWEIGHT": {"TEMPERATURE": 0.0}}), "TEMPERATURE: must be above 0, got 0.0"),
        (block(PILLARS | {"ADAPTER": {"DIM": 0}}), "DIM: must be at least 1 or null, got 0"),
        (block(PILLARS | {"SCHEDULE": {"NAME": "ramp"}}), "EPOCHS: ramp needs a number of epochs"),
        (block(PILLARS | {"SCHEDULE": {"NAME": "gaussian"}}), "EPOCHS: gaussian needs a number of epochs"),
        (block(PILLARS | {"PRESET": "offical"}), r"KD.LOSSES\[0\].PRESET: must be one of"),
        (block(PILLARS, TEACHER={"MODE": "evaluation"}), "KD.TEACHER.MODE"),
        (block(PILLARS, LOG_EVERY=-1), r"KD.LOG_EVERY: must be at least 0 \(never\), got -1"),
        (block(PILLARS | {"PAIR": 1}), "PointDistiller gets this from the code"),
    ],
)
def test_wrong_keys_and_values_are_named_with_their_path(node, message):
    with pytest.raises(ConfigError, match=message):
        resolve(node)


def test_all_problems_are_reported_at_once():
    with pytest.raises(ConfigError) as error:
        resolve(block(PILLARS | {"GRAPH": {"KK": 3}}, LOGITS | {"CLS": 1}, TEACHER={"CONFIG": "x"}))
    assert len(error.value.problems) == 3


def test_what_the_losses_complain_about_is_told_at_once_with_its_path_and_a_way_out():
    with pytest.raises(ConfigError) as error:
        distil(
            PILLARS | {"FEATURE": "pilar_features"},
            MAP | {"FEATURE": "backbone_2d.block.0"},
            PILLARS | {"ADAPTER": {"TEACHER": "none", "STUDENT": "none"}},
            LOGITS | {"NUM": 0},
            LOGITS | {"WEIGHT": -1.0},
        )
    expected = [
        ("'pilar_features' of PointPillar has", "did you mean pillar_features?"),
        ("'backbone_2d.block.0' of PointPillar has", "did you mean backbone_2d.blocks.0?"),
        ("ADAPTER: none gives 16 channels, but 32 are to be compared", "use linear"),
        ("NUM must be at least 1", "got 0, 0.1"),
        ("WEIGHT must be at least 0", "got -1.0"),
    ]
    for i, (problem, (rule, end)) in enumerate(zip(error.value.problems, expected, strict=True)):
        assert problem.startswith(f"KD.LOSSES[{i}]: ") and rule in problem and end in problem


@pytest.mark.parametrize(
    "kind, feature",
    [
        ("pillar", "pillar_features"),
        ("voxel", "multi_scale_3d_features.x_conv2"),
        ("point", "point_features"),
        ("stage", "backbone_2d.blocks.0"),
        ("map", "spatial_features_2d"),
    ],
)
@pytest.mark.parametrize("preset", ["official", "paper"])
def test_a_preset_names_every_choice_of_the_method(preset, kind, feature):
    assert kind_of(feature) == kind
    node = POINT_DISTILLER[preset][kind]
    assert {"WEIGHT", "SAMPLE", "GRAPH", "REWEIGHT", "ADAPTER", "DISTANCE"} == set(node)
    assert set(node["SAMPLE"]) == {"NUM", "BY", "MODE"}
    assert set(node["GRAPH"]) == {"K", "SPACE", "CANDIDATES", "EDGE", "POOL", "PER_FRAME"}
    assert set(node["ADAPTER"]) == {"TEACHER", "STUDENT", "DIM", "AFFINE"}
    assert check_node({"NAME": "PointDistiller", "FEATURE": feature, **node}, KD_LOSSES) == []


def test_official_is_what_the_released_code_executes():
    kd, _ = resolve(block({"NAME": "PointDistiller", "FEATURE": "pillar_features", "PRESET": "official"}))
    (loss,) = kd.losses
    assert (loss["WEIGHT"], loss["SAMPLE"]["NUM"], loss["GRAPH"]["K"]) == (2.0, 6000, 128)
    assert loss["REWEIGHT"] == {"BY": "num_points", "TEMPERATURE": 0.01}
    assert (loss["GRAPH"]["PER_FRAME"], loss["GRAPH"]["SPACE"]) == (False, "feature")
    assert loss["ADAPTER"] == {"TEACHER": "linear_bn_relu", "STUDENT": "linear_bn_relu", "DIM": None, "AFFINE": True}
    assert kd.teacher.mode == "train"


def test_keys_that_are_given_win_over_the_preset():
    node = {"NAME": "PointDistiller", "FEATURE": "pillar_features", "GRAPH": {"K": 8}, "REWEIGHT": None}
    kd, _ = resolve(block(node, TEACHER={"MODE": "eval"}, PRESET="official"))
    (loss,) = kd.losses
    assert (loss["PRESET"], loss["GRAPH"]["K"], loss["GRAPH"]["SPACE"]) == ("official", 8, "feature")
    assert loss["REWEIGHT"] is None and kd.teacher.mode == "eval"


@pytest.mark.parametrize(
    ("feature", "given", "expected"),
    [
        ("pillar_features", {"BY": "log_points"}, 1.0),
        ("pillar_features", {"BY": "graph_max"}, 1.0),
        ("pillar_features", {"BY": "score"}, 0.1),
        ("pillar_features", {"BY": "num_points"}, 5.0),
        ("spatial_features_2d", {"BY": "score"}, 0.1),
        ("spatial_features_2d", {"BY": "num_points"}, 5.0),
        ("point_features", {"BY": "channel_max"}, 1.0),
        ("encoded_spconv_tensor", {"BY": "num_points"}, 5.0),
        ("pillar_features", {"BY": "log_points", "TEMPERATURE": 3}, 3.0),
        ("pillar_features", {"TEMPERATURE": 3}, 3.0),
    ],
)
def test_a_temperature_is_in_the_unit_of_its_own_measure(feature, given, expected):
    kd, _ = resolve(block({"NAME": "PointDistiller", "FEATURE": feature, "REWEIGHT": given}))
    assert kd.losses[0]["REWEIGHT"]["TEMPERATURE"] == expected


def test_the_temperature_of_a_preset_stays_with_its_measure_alone():
    node = {"NAME": "PointDistiller", "FEATURE": "pillar_features", "PRESET": "official"}
    both = resolve(block(*({**node, "REWEIGHT": {"BY": by}} for by in ("num_points", "log_points"))))[0]
    assert [loss["REWEIGHT"]["TEMPERATURE"] for loss in both.losses] == [0.01, 1.0]


def test_a_block_preset_is_for_losses_that_have_it_and_name_none():
    kd, _ = resolve(
        block(MAP | {"PRESET": "default"}, PILLARS, LOGITS, {"NAME": "FitNet", "FEATURE": "x"}, PRESET="paper")
    )
    assert [loss.get("PRESET") for loss in kd.losses] == ["default", "paper", None, None]
    assert kd.teacher.mode == "eval"


def test_the_resolved_block_is_complete_and_resolves_to_itself():
    kd, resolved = resolve(block(PILLARS, MAP, LOGITS))
    assert resolve(resolved)[1] == resolved
    assert resolved["LOSSES"][1]["GRAPH"] == {
        "K": 16,
        "SPACE": "feature",
        "CANDIDATES": 80,
        "EDGE": "concat",
        "POOL": "none",
        "PER_FRAME": True,
    }
    assert yaml.safe_load(yaml.safe_dump(resolved)) == resolved
    assert parse_node(resolved, KDConfig) == kd


def test_the_block_is_logged_with_everything_written_out(caplog):
    with caplog.at_level(logging.INFO, logger="pcdet"):
        distil(PILLARS | {"PRESET": "paper"})
    for text in ("TEMPERATURE: 0.01", "SPACE: feature", "DISTANCE: norm", "MODE: eval"):
        assert text in caplog.text


def test_losses_of_one_class_are_numbered(batch):
    distiller = distil(PILLARS, MAP, LOGITS)
    assert list(distiller.losses) == ["PointDistiller_1", "PointDistiller_2", "PivotalLogit"]
    assert {"kd/PointDistiller_1", "kd/PointDistiller_2", "kd/PivotalLogit", "kd/total"} <= set(distiller(batch)[1])


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({}, [1, 1, 1, 1]),
        ({"name": "ramp", "epochs": 2}, [0.5, 1, 1, 1]),
        ({"name": "gaussian", "epochs": 2}, [0.006737947, 0.2865048, 1, 1]),  # exp(-5), exp(-5 / 4)
        ({"name": "stop", "epochs": 2}, [1, 1, 0, 0]),
        ({"name": "cosine"}, [1, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_schedules(keys, expected):
    assert [ScheduleConfig(**keys).at(epoch, 4) for epoch in range(4)] == pytest.approx(expected)


def test_a_stopped_loss_costs_nothing_and_keeps_its_adapters_in_the_graph(batch):
    distiller = distil(PILLARS | {"SCHEDULE": {"NAME": "stop", "EPOCHS": 1}}, LOGITS)
    distiller.set_epoch(0, 4)
    assert kd_terms(distiller(batch)[1])["kd/PointDistiller"] > 0
    distiller.set_epoch(1, 4)
    distiller.zero_grad()
    ret_dict, tb_dict, _ = distiller(batch)
    ret_dict["loss"].backward()
    assert tb_dict["kd/PointDistiller"] == 0 and "kd/PointDistiller/nodes" not in tb_dict
    for parameter in distiller.losses.parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) == 0


def count_forwards(teacher):
    """Slots of the teacher's that have run so far, in order."""
    ran = []
    for name, module in teacher.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    return ran


def test_the_teacher_does_not_run_where_no_loss_counts(batch):
    distiller = distil(LOGITS | {"SCHEDULE": {"NAME": "stop", "EPOCHS": 1}}, MAP | {"WEIGHT": 0.0})
    ran = count_forwards(distiller.teacher)
    distiller.set_epoch(1, 4)
    tb_dict = distiller(batch)[1]
    assert ran == [] and tb_dict["kd/total"] == tb_dict["kd/PivotalLogit"] == tb_dict["kd/PointDistiller"] == 0
    distiller.set_epoch(0, 4)
    distiller(batch)
    assert "backbone_2d" in ran


def test_the_teacher_runs_no_further_than_the_losses_that_count_need(batch):
    distiller = distil(PILLARS, MAP | {"SCHEDULE": {"NAME": "stop", "EPOCHS": 1}}, LOGITS | {"WEIGHT": 0.0})
    ran = count_forwards(distiller.teacher)
    distiller.set_epoch(1, 4)
    assert distiller(batch)[1]["kd/PointDistiller_1"] > 0 and ran == ["vfe"]


@pytest.mark.parametrize("losses", [[], [MAP | {"WEIGHT": 0.0}]], ids=["none", "weight 0"])
def test_slices_alone_are_a_plain_training_that_begins_with_them(batch, losses):
    teacher, student, plain = wide_detector(), detector(), detector()
    ran = count_forwards(teacher)
    distiller = distil(*losses, student=student, teacher=teacher, INIT={"NAME": "slice"})
    assert torch.equal(student.dense_head.conv_box.bias, teacher.dense_head.conv_box.bias)
    alive = weakref.ref(teacher)
    del teacher
    gc.collect()
    assert distiller.teacher is None and alive() is None, "its memory is not given back"
    plain.load_state_dict(student.state_dict())
    (given, tb_dict, _), (wanted, _, _) = distiller(dict(batch)), plain.train()(dict(batch))
    assert torch.equal(given["loss"], wanted["loss"]) and tb_dict["kd/total"] == 0 and ran == []
    given["loss"].backward()
    wanted["loss"].backward()
    for a, b in zip(student.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    distiller.eval().double()  # what moves and switches a teacher does without one


def test_a_training_that_began_with_slices_alone_goes_on_as_a_distillation():
    distillers = [distil(student=detector(seed), INIT={"NAME": "slice"}) for seed in (0, 1)]
    state = checkpoint_state(distillers[0])
    assert state["kd_state"] == {} and "teacher_fingerprint" not in state
    torch.nn.init.zeros_(distillers[1].student.dense_head.conv_box.weight)
    load_checkpoint(state, distillers[1])
    assert distillers[1].student.dense_head.conv_box.weight.any()


def test_expensive_diagnostics_come_at_intervals_and_stay_in_the_log(batch):
    distiller = distil(MAP, LOG_EVERY=2)
    values = [distiller(batch)[1]["kd/PointDistiller/explained"] for _ in range(3)]
    assert values[0] == values[1] and 0 < values[0] <= 1
    assert "kd/PointDistiller/explained" not in distil(MAP, LOG_EVERY=0)(batch)[1]


def test_two_training_steps_of_every_preset_lower_the_kd_loss(batch):
    for preset in ("default", "official", "paper"):
        distiller = distil(MAP | {"PRESET": preset})
        totals, _ = train(distiller, batch)
        assert totals[-1] < totals[0], preset


TOOLS = Path(__file__).resolve().parents[3] / "tools"


def distils(path):
    """Whether a model file or its base has a KD block; read as text, since every collection of tests asks this."""
    text = path.read_text()
    bases = re.findall(r"^_BASE_CONFIG_: *(\S+)", text, re.MULTILINE)
    return re.search("^KD:", text, re.MULTILINE) is not None or any(distils(TOOLS / base) for base in bases)


def shipped_blocks():
    return [path for path in sorted((TOOLS / "cfgs").rglob("*.yaml")) if distils(path)]


@pytest.mark.parametrize("path", shipped_blocks(), ids=lambda path: path.stem)
def test_every_shipped_block_builds_a_distiller_for_its_model(path):
    _, student, teacher = distiller_of(cfg_from_yaml_file(path, EasyDict()))
    if "from_" not in path.stem:
        of_student, of_teacher = (sum(p.numel() for p in model.parameters()) for model in (student, teacher))
        assert of_student < of_teacher * (0.55 if "_2x" in path.stem else 0.33)


def test_a_list_of_features_is_a_loss_for_each(batch):
    taps = ["backbone_2d.blocks.0", "backbone_2d.blocks.1"]
    kd, resolved = resolve(block(MAP | {"FEATURE": taps}, MAP | {"FEATURE": taps, "TEACHER_FEATURE": taps[::-1]}))
    assert [loss["FEATURE"] for loss in kd.losses] == taps * 2
    assert [loss["TEACHER_FEATURE"] for loss in kd.losses] == [None, None, *taps[::-1]]
    assert resolve(resolved)[1] == resolved
    logs = kd_terms(distil(MAP | {"FEATURE": taps})(batch)[1])
    assert logs["kd/total"] == pytest.approx(logs["kd/PointDistiller_1"] + logs["kd/PointDistiller_2"])


def test_lists_of_taps_that_do_not_fit_are_reported_together():
    taps = ["backbone_2d.blocks.0", "backbone_2d.blocks.1"]
    with pytest.raises(ConfigError) as error:
        resolve(
            block(
                MAP | {"FEATURE": taps, "TEACHER_FEATURE": taps[:1]},
                LOGITS,
                MAP | {"TEACHER_FEATURE": taps[:1]},
                {"NAME": "FitNet", "FEATURE": []},
            )
        )
    expected = [
        "KD.LOSSES[0].TEACHER_FEATURE: must list as many taps as FEATURE",
        "KD.LOSSES[2].TEACHER_FEATURE: must name one tap, as FEATURE 'spatial_features_2d' does, got the list",
        "KD.LOSSES[3].FEATURE: must name at least one tap, got an empty list",
    ]
    assert all(p.startswith(e) for p, e in zip(error.value.problems, expected, strict=True)), error.value.problems


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("backbone_2d", r"gives the whole batch_dict; tap an entry that it writes \(spatial_features_2d\)"),
        ("backbone_2d.blocks", "is a list of modules, .* tap one of backbone_2d.blocks.0, backbone_2d.blocks.1"),
        (
            "multi_scale_3d_features.x_conv3",
            r"cannot tell how many channels .* no module of PointPillar says that it writes 'multi_scale_3d_features'",
        ),
        ("backbone_2d.blocks.0.3", r"ReLU does not say; tap the layer around it \(backbone_2d.blocks.0\)$"),
    ],
)
def test_taps_that_can_give_no_tensor_are_found_when_the_distiller_is_built(tap, message):
    with pytest.raises(ConfigError, match=message):
        distil(MAP | {"FEATURE": tap})


@pytest.mark.parametrize(
    ("feature", "sample", "reweight"),
    [
        ("point_features", "channel_max", "graph_max"),
        ("pillar_features", "num_points", "num_points"),
        ("encoded_spconv_tensor", "num_points", "log_points"),
        ("multi_scale_3d_features.x_conv3", "num_points", "log_points"),
        ("backbone_3d.conv3", "num_points", "log_points"),
        ("backbone_2d.blocks.0", "num_points", "log_points"),
    ],
)
def test_voxels_matter_by_their_points_and_points_by_their_response(feature, sample, reweight):
    """Sections 3.1 and 3.3 of the paper; the released code leaves the weights of points out."""
    kd, _ = resolve(block({"NAME": "PointDistiller", "FEATURE": feature}))
    (loss,) = kd.losses
    assert (loss["SAMPLE"]["BY"], loss["REWEIGHT"]["BY"], loss["GRAPH"]["PER_FRAME"]) == (sample, reweight, True)


def test_the_map_of_the_head_is_sampled_by_score_and_unweighted_as_it_was_measured():
    """docs/benchmarks/quickstart.md; the simulated and the small models leave it to this."""
    kd, _ = resolve(block({"NAME": "PointDistiller", "FEATURE": "spatial_features_2d"}))
    assert (kd.losses[0]["SAMPLE"], kd.losses[0]["REWEIGHT"]) == ({"NUM": 256, "BY": "score", "MODE": "top"}, None)
