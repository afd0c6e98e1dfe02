"""NuScenesDataset evaluates what it is given, and comparisons take its numbers by the metrics that it names."""

import json

import numpy as np
import pytest
from easydict import EasyDict
from support import nuscenes_files

from pcdet.audit.page.comparison_rows import Compared, comparison_tables
from pcdet.audit.page.measured_tables import measured_tables
from pcdet.audit.page.summary import comparison_claims
from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.errors import DataError
from pcdet.datasets.kitti.metrics import KITTI_METRICS
from pcdet.datasets.metrics import EvaluationMetrics
from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES
from pcdet.datasets.nuscenes.evaluation import frame_scores_of_annos
from pcdet.datasets.nuscenes.layout import info_name
from pcdet.datasets.nuscenes.metrics import NUSCENES_METRICS
from pcdet.datasets.nuscenes.nuscenes_dataset import NuScenesDataset
from pcdet.experiments.quickstart.comparison import Row, comparison_to_json
from pcdet.experiments.quickstart.comparison_plot import draw_comparison
from pcdet.experiments.quickstart.comparison_tables import accuracy_tables, comparison_table, gain_table
from pcdet.experiments.quickstart.meaning import what_it_means

CLASSES = list(DETECTION_CLASSES)


@pytest.fixture(scope="module")
def dataset(prepared_release, repo_root):
    cfg = cfg_from_yaml_file(repo_root / "tools/cfgs/dataset_configs/nuscenes_dataset.yaml", EasyDict())
    cfg.VERSION, cfg.MAX_SWEEPS = nuscenes_files.VERSION, nuscenes_files.SWEEPS
    cfg.INFO_PATH = {mode: [info_name(split, cfg.MAX_SWEEPS)] for mode, split in (("train", "train"), ("test", "val"))}
    return NuScenesDataset(cfg, CLASSES, False, prepared_release)


@pytest.fixture(scope="module")
def annos(dataset):
    """The results of a detector that finds every labelled object."""
    annos = []
    for index in range(len(dataset)):
        frame = dataset.load_frame(index)
        known = [name in CLASSES for name in frame["gt_names"]]
        boxes, names = frame["gt_boxes"][known], frame["gt_names"][known]
        prediction = {"pred_boxes": boxes, "pred_scores": np.linspace(0.9, 0.5, len(boxes))}
        prediction["pred_labels"] = np.array([CLASSES.index(name) + 1 for name in names])
        batch = {"frame_id": [frame["frame_id"]], "metadata": [frame["metadata"]]}
        annos += dataset.generate_prediction_dicts(batch, [prediction], CLASSES)
    return annos


@pytest.fixture(scope="module")
def evaluated(dataset, annos, tmp_path_factory):
    """(text, numbers) of this detector, and the folder of what was written."""
    folder = tmp_path_factory.mktemp("final_result")
    return dataset.evaluation(annos, CLASSES, output_path=folder), folder


def test_labels_in_the_lidars_frame_are_found_where_the_tables_have_them(evaluated):
    """Poses, headings and velocities go through the infos one way and through the evaluation the other."""
    (text, numbers), folder = evaluated
    for name in ("car", "truck"):
        assert numbers[f"{name}/AP"] == pytest.approx(1)
        for error in ("trans_err", "scale_err", "orient_err", "vel_err"):
            assert numbers[f"{name}/{error}"] == pytest.approx(0, abs=1e-4), (name, error)
    assert numbers["mAP"] == pytest.approx(0.2)  # of ten classes
    assert f"NDS:\t {numbers['NDS']:.4f}" in text
    assert json.loads((folder / "metrics_summary.json").read_text())["nd_score"] == numbers["NDS"]
    assert len(json.loads((folder / "results_nusc.json").read_text())["results"]) == 2


@pytest.mark.parametrize("metric", ["NDS", "mAP"])
def test_frame_by_frame_it_scores_what_its_evaluation_says(dataset, annos, evaluated, metric):
    scores = dataset.frame_scores(list(reversed(annos)), CLASSES, metric)
    assert scores.num_frames == len(dataset) == 2
    assert scores.resampled([[1, 1]])[0] / 100 == pytest.approx(evaluated[0][1][metric], abs=1e-12)
    assert scores.resampled([[2, 0], [0, 2]]).min() > 0


def test_frames_of_one_scene_are_drawn_together(dataset, annos):
    assert dataset.frame_scores(annos, CLASSES).blocks.tolist() == [0, 0]  # mini_val of the release is one scene


def test_scenes_are_read_again_when_their_table_is_another(release, dataset, annos):
    place = {"root_path": release / nuscenes_files.VERSION, "version": nuscenes_files.VERSION, "infos": dataset.infos}
    assert frame_scores_of_annos(annos, **place).blocks.tolist() == [0, 0]

    def tell_apart(rows):
        for row in rows:
            row["scene_token"] = row["token"]

    nuscenes_files.change_table(release, "sample", tell_apart)
    assert frame_scores_of_annos(annos, **place).blocks.tolist() == [0, 1]


def test_frames_without_labels_cannot_be_scored(dataset, annos, monkeypatch):
    bare = [{key: value for key, value in info.items() if key != "gt_boxes"} for info in dataset.infos]
    monkeypatch.setattr(dataset, "infos", bare)
    with pytest.raises(DataError, match="none of the 2 frames has labels"):
        dataset.frame_scores(annos, CLASSES)


def test_the_best_checkpoint_is_that_of_the_highest_nds(evaluated, dataset):
    (_, numbers), _ = evaluated
    assert dataset.METRICS.headline(numbers) == ("NDS", pytest.approx(numbers["NDS"]))
    assert dataset.METRICS.headline({"recall/rcnn_0.5": 0.5}) is None
    kitti = {"Car_3d/moderate_R40": 60.0, "Cyclist_3d/moderate_R40": 20.0, "Car_bev/moderate_R40": 90.0}
    assert KITTI_METRICS.headline(kitti) == ("mean_3d/moderate_R40", 40.0)


@pytest.mark.parametrize("metrics", [KITTI_METRICS, NUSCENES_METRICS], ids=["kitti", "nuscenes"])
def test_metrics_come_back_from_json(metrics):
    again = EvaluationMetrics.from_json(json.loads(json.dumps(metrics.to_json())))
    assert again.to_json() == json.loads(json.dumps(metrics.to_json()))
    assert again.main.axis == metrics.main.axis
    with pytest.raises(ValueError, match="metrics: not those of an evaluation"):
        EvaluationMetrics.from_json({"scores": []})


def test_metrics_name_the_numbers_that_tables_need():
    """Of each class in its order, then of all: plans keep these in their results, in this order."""
    levels = ("easy", "moderate", "hard")
    kitti = [f"{name}_{kind}/{level}_R40" for name in ("Car", "Cyclist") for kind in ("3d", "bev") for level in levels]
    assert KITTI_METRICS.kept_keys(["Car", "Cyclist"]) == kitti
    errors = ["trans_err", "scale_err", "orient_err", "vel_err", "attr_err"]
    assert NUSCENES_METRICS.kept_keys(["car", "bus"]) == ["car/AP", "bus/AP", "NDS", "mAP", *errors]
    assert (KITTI_METRICS.columns, NUSCENES_METRICS.columns) == ("mAP", "NDS and mAP")
    assert KITTI_METRICS.main.above(" of 4x") == "3D AP of 4x (R40, %)" and NUSCENES_METRICS.main.above() == "NDS (%)"


@pytest.fixture
def rows(evaluated):
    """A teacher, a control, and a student that is worse than the teacher by 0.1 of NDS and 0.05 of mAP."""
    (_, numbers), _ = evaluated
    worse = {**numbers, "NDS": numbers["NDS"] - 0.1, "mAP": numbers["mAP"] - 0.05, "car/AP": 0.5}
    lowest = {**worse, "NDS": worse["NDS"] - 0.05}
    found = {}
    for name, result in (("teacher", numbers), ("student", lowest), ("kd", worse)):
        found[name] = Row(metrics=NUSCENES_METRICS, params=10, macs=1000, train_cpu_s=[3.0])
        found[name].add(result, NUSCENES_METRICS.classes(result))
    return found


def test_a_comparison_has_nds_and_map_in_percent_and_errors(rows, evaluated):
    numbers = evaluated[0][1]
    summary, by_class = comparison_table(rows).split("\n\n")
    assert summary.splitlines()[0].split()[:5] == ["NDS", "and", "mAP", "NDS", "mAP"]
    assert summary.splitlines()[2].split()[:3] == ["teacher", f"{100 * numbers['NDS']:.1f}", "20.0"]
    assert by_class.split()[:3] == ["AP", "car", "truck"] and by_class.splitlines()[4].split()[1] == "50.0"
    further = accuracy_tables(rows)
    assert "mAP by distance (m)" in further and "AP 0.5" in further and "AP 4.0" in further
    assert f"{numbers['vel_err']:.3f}" in further and "mAVE" in further
    gains = gain_table(rows, ["student"]).splitlines()
    assert gains[0].startswith("gain in NDS and mAP") and ["kd,", "NDS", "+5.0"] in [line.split() for line in gains]


def test_its_json_makes_a_page_of_nds_and_map(rows):
    content = json.loads(json.dumps(comparison_to_json(rows, frames=2)))
    assert content["rows"]["teacher"]["mAP"]["all"] == [pytest.approx(20)] and "mean_ap" not in content["rows"]["kd"]
    compared = Compared(content)
    summary, by_class, gains = comparison_tables(compared)
    assert summary.header[:3] == ["model", "NDS", "mAP"] and by_class.header[1] == "car"
    assert [row[:3] + row[4:5] for row in gains.rows if row[0] == "kd"] == [
        ["kd", "student", "NDS", "+5.0"], ["kd", "student", "mAP", "+0.0"],
    ]  # fmt: skip
    headings = [table.heading for table in measured_tables(compared)]
    assert headings[:2] == ["mAP by distance (m), %", "errors of true positives, m, 1 - IoU, rad, m/s, 1 - accuracy"]
    assert "is not shown: +5.0 points of NDS" in comparison_claims(compared)[0]
    kitti_names = {"student+longer": "kd", "student+slices": "kd", "student+pointdistiller": "kd"}
    five = {**content["rows"], **{name: content["rows"][own] for name, own in kitti_names.items()}}
    assert "10.0 points of NDS less" not in (said := what_it_means(five, compared.metrics.main))
    assert "15.0 points of NDS less than its" in said


def test_the_picture_has_a_bar_for_each_score(rows):
    figure = draw_comparison(rows)
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["NDS", "mAP"] * 3 and figure.axes[1].get_ylabel() == "NDS (%)"
