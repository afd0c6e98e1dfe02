"""A teacher of another architecture, range or voxel size than its student."""

import copy

import numpy as np
import pytest
import torch
import yaml
from easydict import EasyDict
from kd_detectors import CFGS, NEAR, POINTS, network, point_rcnn, pointrcnn, second_cfg, voxel_batch
from kd_pairs import kd_terms, pp, train

from pcdet.api import load_teacher
from pcdet.config import cfg_from_yaml_file
from pcdet.models.kd import build_distiller
from pcdet.models.kd.features.teacher_batch import teacher_input
from pcdet.registry import ConfigError

STUDENT_RANGE = (0.0, -2.56, -3.0, 5.12, 2.56, 1.0)
PILLARS = pp.dataset_facts(STUDENT_RANGE)
MAP = {"NAME": "PointDistiller", "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 20}, "WEIGHT": 5.0}
FIT = {"NAME": "FitNet", "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 50}}


def data_config(point_cloud_range, voxel_size, max_points, max_voxels=(16000, 40000)):
    return {
        "POINT_CLOUD_RANGE": list(point_cloud_range),
        "POINT_FEATURE_ENCODING": {"used_feature_list": ["x", "y", "z", "intensity"]},
        "DATA_PROCESSOR": [
            {"NAME": "mask_points_and_boxes_outside_range", "REMOVE_OUTSIDE_BOXES": True},
            {
                "NAME": "transform_points_to_voxels",
                "VOXEL_SIZE": list(voxel_size),
                "MAX_POINTS_PER_VOXEL": max_points,
                "MAX_NUMBER_OF_VOXELS": {"train": max_voxels[0], "test": max_voxels[1]},
            },
        ],
    }


def sampled(points):
    return {"NAME": "sample_points", "NUM_POINTS": {"train": points, "test": 2 * points}}


SECOND_DATA = data_config(NEAR, (0.05, 0.05, 0.1), 5)
PILLAR_DATA = data_config(STUDENT_RANGE, (0.16, 0.16, 4.0), 32)
POINT_DATA = {**SECOND_DATA, "DATA_PROCESSOR": [sampled(512)]}


@pytest.fixture
def batch():
    return voxel_batch(PILLARS)


def plain(node):
    """EasyDict, recursively, as what YAML can write."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, (list, tuple)) else node


@pytest.fixture
def distil(tmp_path, monkeypatch):
    """A distiller of a tiny PointPillars whose teacher comes from a file and a checkpoint."""

    def build(teacher_model, teacher_data, facts, *losses, **block):
        given = EasyDict(MODEL=teacher_model, CLASS_NAMES=pp.CLASS_NAMES, DATA_CONFIG=teacher_data)
        (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(plain(given)))
        monkeypatch.setattr("pcdet.config.load.validate_config", lambda *_: None)  # there is no data set behind it
        torch.save({"model_state": network(teacher_model, facts, seed=1).state_dict()}, tmp_path / "teacher.pth")
        files = {"CFG": str(tmp_path / "teacher.yaml"), "CKPT": str(tmp_path / "teacher.pth")}
        cfg = EasyDict(DATA_CONFIG=PILLAR_DATA, KD={"TEACHER": files, "LOSSES": list(losses), **block})
        student = network(pp.tiny_model_cfg(), PILLARS, seed=0)
        teacher, own_input = load_teacher(cfg, PILLARS)
        return build_distiller(cfg, student, PILLARS, teacher=teacher, own_input=own_input).train()

    return build


def test_second_teaches_pointpillars(distil, batch):
    pytest.importorskip("spconv")
    distiller = distil(second_cfg(0.125), SECOND_DATA, pp.dataset_facts(NEAR, (0.05, 0.05, 0.1)), MAP, FIT)
    totals, logs = train(distiller, batch)
    assert totals[-1] < totals[0]
    assert logs[-1]["kd/FitNet/matched"] == logs[-1]["kd/PointDistiller/matched"] == 1
    assert distiller.student.backbone_2d.blocks[0][1].weight.grad.abs().sum() > 0


def test_the_teacher_sees_the_voxels_of_its_own_data_processor(batch):
    """Against a voxeliser in plain Python."""
    cfg = {"DATA_CONFIG": SECOND_DATA}
    own = teacher_input(cfg, {"DATA_CONFIG": PILLAR_DATA}, PILLARS)
    facts = pp.dataset_facts(NEAR, (0.05, 0.05, 0.1))
    assert own.geometry.grid_size == tuple(facts.grid_size)
    seen = own(batch)
    for frame in range(2):
        cloud = batch["points"][batch["points"][:, 0] == frame, 1:].numpy()
        voxels, coords, counts = pp.voxelise(cloud, facts, max_points=5)
        rows = seen["voxel_coords"][:, 0] == frame
        assert np.array_equal(seen["voxel_coords"][rows][:, 1:].numpy(), coords)
        assert np.array_equal(seen["voxels"][rows].numpy(), voxels)
        assert np.array_equal(seen["voxel_num_points"][rows].numpy(), counts)
    assert seen["points"] is batch["points"] and len(batch["voxels"]) != len(seen["voxels"])


def test_training_takes_the_training_limit_of_voxels(batch):
    few = {"DATA_CONFIG": data_config(NEAR, (0.05, 0.05, 0.1), 5, max_voxels=(30, 40000))}
    own = teacher_input(few, {"DATA_CONFIG": PILLAR_DATA}, PILLARS)
    assert len(own(batch)["voxels"]) == 60


def test_a_frame_without_points_has_no_voxels(batch):
    own = teacher_input({"DATA_CONFIG": SECOND_DATA}, {"DATA_CONFIG": PILLAR_DATA}, PILLARS)
    seen = own({**batch, "points": batch["points"][batch["points"][:, 0] == 1]})
    assert set(seen["voxel_coords"][:, 0].tolist()) == {1}


@pytest.mark.parametrize(
    "teacher",
    [
        {"DATA_CONFIG": copy.deepcopy(PILLAR_DATA)},
        {"DATA_CONFIG": data_config(STUDENT_RANGE, (0.16, 0.16, 4.0), 32, max_voxels=(16000, 99))},  # of testing
        {"MODEL": {}},
    ],
)
def test_a_teacher_on_the_students_grid_takes_the_students_voxels(teacher):
    assert teacher_input(teacher, {"DATA_CONFIG": PILLAR_DATA}, PILLARS) is None


def test_pillars_of_another_size_teach_where_both_ranges_are(distil, batch):
    """A coarser teacher on a shorter range: cells beyond it are left out."""
    size, reach = (0.32, 0.32, 4.0), (0.0, -2.56, -3.0, 2.56, 2.56, 1.0)
    facts = pp.dataset_facts(reach, size)
    model = pp.tiny_model_cfg()
    pillars = {"NAME": "FitNet", "FEATURE": "pillar_features"}
    distiller = distil(model, data_config(reach, size, 32), facts, MAP, FIT, pillars)
    logs = kd_terms(distiller(batch)[1])
    assert logs["kd/FitNet_1/matched"] == logs["kd/PointDistiller/matched"] == 0.5
    x = batch["voxel_coords"][:, 3]
    assert logs["kd/FitNet_2/matched"] == pytest.approx(float((x < 16).float().mean()))


def test_voxels_teach_the_points_that_lie_in_them():
    """Student without voxels, teacher with: the counts behind the teacher's voxels are its own."""
    pytest.importorskip("spconv")
    facts = pp.dataset_facts(NEAR, (0.05, 0.05, 0.1))
    own = teacher_input({"DATA_CONFIG": SECOND_DATA}, {"DATA_CONFIG": POINT_DATA}, POINTS)
    node = {"NAME": "FitNet", "FEATURE": "point_features", "TEACHER_FEATURE": "multi_scale_3d_features.x_conv2"}
    node["SAMPLE"] = {"NUM": 50, "BY": "num_points"}
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": [node]})
    teacher = network(second_cfg(0.125), facts, seed=1)
    distiller = build_distiller(cfg, point_rcnn(0.125), POINTS, teacher=teacher, own_input=own).train()
    points = pointrcnn.random_batch(points=512)
    low, high = torch.tensor(NEAR[:3]), torch.tensor(NEAR[3:])
    inside = ((points["points"][:, 1:4] >= low) & (points["points"][:, 1:4] <= high)).all(dim=1)
    logs = kd_terms(distiller(points)[1])
    assert logs["kd/FitNet/matched"] == pytest.approx(float(inside.float().mean())) and logs["kd/total"] > 0


def test_logits_of_other_anchors_are_refused_when_the_distiller_is_built(distil):
    facts = pp.dataset_facts(NEAR, (0.16, 0.16, 4.0))
    with pytest.raises(ConfigError, match=r"KD.LOSSES\[0\]: PivotalLogit compares anchor by anchor, but the teacher's"):
        distil(pp.tiny_model_cfg(), data_config(NEAR, (0.16, 0.16, 4.0), 32), facts, {"NAME": "PivotalLogit"})


@pytest.mark.parametrize("own_grid", [True, False])
def test_points_that_the_teacher_needs_and_the_student_has_not_are_an_error(own_grid):
    student = data_config(NEAR, (0.1, 0.1, 0.1) if own_grid else (0.05, 0.05, 0.1), 5)
    teacher = copy.deepcopy(SECOND_DATA)
    teacher["DATA_PROCESSOR"].append(sampled(512))
    teacher["POINT_FEATURE_ENCODING"]["used_feature_list"] = ["x", "y", "z"]
    with pytest.raises(ConfigError) as error:
        teacher_input({"DATA_CONFIG": teacher}, {"DATA_CONFIG": student}, PILLARS)
    columns, sampling = error.value.problems
    assert "point columns ['x', 'y', 'z'] must be the student's" in columns and "'intensity'" in columns
    assert "takes 512 sampled points a frame" in sampling and "no step sample_points" in sampling


def test_a_batch_without_points_is_an_error(batch):
    own = teacher_input({"DATA_CONFIG": SECOND_DATA}, {"DATA_CONFIG": PILLAR_DATA}, PILLARS)
    with pytest.raises(ConfigError, match="but the batch has none; keep 'points' in it"):
        own({k: v for k, v in batch.items() if k != "points"})


@pytest.mark.parametrize("own_grid", [True, False])
@pytest.mark.parametrize(("points", "told"), [(512, False), (64, True)])
def test_a_teacher_of_more_points_than_the_students_is_warned_of_with_both_numbers(own_grid, points, told, caplog):
    """A point network sees another density, but works."""
    student = {**POINT_DATA, "DATA_PROCESSOR": [sampled(points)]}
    if own_grid:
        student["POINT_CLOUD_RANGE"] = [0.0, *student["POINT_CLOUD_RANGE"][1:3], 3.2, *student["POINT_CLOUD_RANGE"][4:]]
    with caplog.at_level("WARNING", logger="pcdet"):
        own = teacher_input({"DATA_CONFIG": POINT_DATA}, {"DATA_CONFIG": student}, POINTS)
    assert (own is not None) == own_grid
    assert ("made for 512 sampled points a frame (-1: all), but sees the student's 64" in caplog.text) == told


def test_the_shipped_file_names_a_teacher_on_another_grid():
    cfg = cfg_from_yaml_file(CFGS / "kd" / "pointpillar_4x_from_second.yaml", EasyDict())
    teacher = cfg_from_yaml_file(CFGS / "second.yaml", EasyDict())
    own = teacher_input(teacher, cfg, pp.dataset_facts(pp.KITTI_RANGE))
    assert own.geometry.grid_size == (1408, 1600, 40) and own.voxelizer.max_voxels == 16000
