"""A plan on nuScenes: carried out with fake commands, scored by NDS and mAP of real labels."""

import json

import numpy as np
import pytest
from easydict import EasyDict
from support import nuscenes_files
from support.fake_nuscenes import NUSCENES, STUDENT, TRAIN, VAL, FakeNuScenesTools
from support.fake_tools import FakeTools
from support.synthetic_results import small_results

from pcdet.audit.page.assembly import write_page
from pcdet.audit.plan_runs import PlanRuns
from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.kitti.metrics import KITTI_METRICS
from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES
from pcdet.datasets.nuscenes.metrics import NUSCENES_METRICS
from pcdet.datasets.nuscenes.nuscenes_dataset import NuScenesDataset
from pcdet.datasets.pickles import read_pickle
from pcdet.experiments.plans.plan import DataConfig, SplitConfig
from pcdet.experiments.plans.splits import Splits
from pcdet.experiments.results.files import ResultsError, parse_results, read_results, results_content, write_results
from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.page import results_text, write_report
from pcdet.experiments.results.plots import draw_curves, draw_gains
from pcdet.experiments.results.schema import PLAIN
from pcdet.experiments.results.tables import tables
from pcdet.registry import ConfigError

ERRORS = ["trans_err", "scale_err", "orient_err", "vel_err", "attr_err"]


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    """(tools, results); not to be written to."""
    fake = FakeNuScenesTools(tmp_path_factory.mktemp("nuscenes") / "fake")
    return fake, fake.carry_out(NUSCENES)


@pytest.fixture
def results(carried_out):
    return carried_out[1]


def evaluation_of(fake, run, frames):
    """What the data set's own evaluation says of a run's results on some frames of the val split."""
    cfg = cfg_from_yaml_file(fake.root / STUDENT, EasyDict())
    cfg.DATA_CONFIG.VERSION = nuscenes_files.VERSION
    cfg.DATA_CONFIG.INFO_PATH = {"train": [TRAIN], "test": [VAL]}
    dataset = NuScenesDataset(cfg.DATA_CONFIG, list(cfg.CLASS_NAMES), False, fake.root / "data")
    dataset.infos = [dataset.infos[i] for i in frames]
    names = {info["lidar_path"].split("/")[-1].removesuffix(".bin") for info in dataset.infos}
    annos = [anno for anno in read_pickle(fake.results(run.id)[0]) if anno["frame_id"] in names]
    return dataset.evaluation(annos, list(cfg.CLASS_NAMES))[1]


def test_runs_have_the_scores_of_the_data_sets_evaluation_on_either_split(carried_out):
    fake, results = carried_out
    assert results.metric == "NDS" and json.loads(json.dumps(results.metrics)) == json.loads(
        json.dumps(NUSCENES_METRICS.to_json())
    )
    assert results.frames.search == 3 and results.frames.report == 4
    run = next(run for run in results.runs if run.method == "fitnet" and run.stage == "finals")
    whole = evaluation_of(fake, run, range(3, 7))
    assert set(run.report) == {"NDS", "mAP", *ERRORS, *(f"{name}/AP" for name in DETECTION_CLASSES)}
    assert run.report == pytest.approx({key: whole[key] for key in run.report}, abs=1e-12)
    assert 0 < run.report["car/AP"] and 0 < run.report["mAP"] < 0.3  # two of ten classes have objects
    assert run.search == {"NDS": pytest.approx(100 * evaluation_of(fake, run, range(3))["NDS"])}


def test_gains_are_points_of_nds_and_map_with_both_intervals(results):
    [nds] = [c for c in results.comparisons if (c.metric, c.control) == ("NDS", PLAIN)]
    assert {c.metric for c in results.comparisons} == {"NDS", "mAP"}
    scores = {
        method: {r.seed: r.report["NDS"] for r in results.runs if r.method == method and r.report and r.length == 1}
        for method in ("fitnet", PLAIN)
    }
    seeds = sorted(scores["fitnet"].keys() & scores[PLAIN].keys())
    assert nds.gains == pytest.approx([100 * (scores["fitnet"][s] - scores[PLAIN][s]) for s in seeds], abs=1e-9)
    assert nds.seeds == 2 and nds.bootstrap is not None and nds.bootstrap[0] < nds.bootstrap[1]


def test_the_file_tells_the_metrics_and_is_read_again_to_the_byte(results, tmp_path):
    write_results(tmp_path / "a.json", results)
    write_results(tmp_path / "b.json", again := read_results(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert again.evaluation.main.noun == "NDS" and [s.name for s in again.evaluation.scores] == ["NDS", "mAP"]


def test_tables_have_nds_map_and_errors_and_no_word_of_kitti(results, tmp_path):
    by_heading = {table.heading: table for table in tables(Reported(results))}
    nds = by_heading["NDS (%), 4 frames of the report split"]
    assert nds.header[4:13] == ["seeds", "cost", "mAP", "mATE", "mASE", "mAOE", "mAVE", "mAAE", "NDS"]
    teacher = next(run for run in results.runs if run.student is None and run.report)
    assert nds.rows[0][6:13] == [
        f"{100 * teacher.report['mAP']:.1f}", *(f"{teacher.report[key]:.3f}" for key in ERRORS),
        f"{100 * teacher.report['NDS']:.1f}",
    ]  # fmt: skip
    by_class = by_heading["AP (%), 4 frames of the report split"]
    assert by_class.header[6:17] == [*results.classes, "mAP"]
    assert by_class.rows[0][6] == f"{100 * teacher.report['car/AP']:.1f}"
    text = results_text(results)
    assert "points of NDS" in text and "Every comparison, points of NDS and mAP" in text and "NDS by length" in text
    assert not any(word in text for word in ("3D", "BEV", "moderate", "R40"))
    page = next(path for path in write_report(results, tmp_path) if path.name == "results.md").read_text()
    assert "\n\nNDS; frames: 4 to train on, 3 that choices" in page


def test_pictures_and_the_page_are_about_nds(results, tmp_path):
    gains = draw_gains(Reported(results))
    assert [axis.get_xlabel() for axis in gains.axes] == ["gain in NDS (points)", "gain in mAP (points)"]
    assert draw_curves(Reported(results)).axes[0].get_ylabel() == "NDS (%)"
    page = write_page(tmp_path / "page.html", results=results, title="nuScenes", facts={}).read_text()
    assert "points of NDS" in page and "3D mAP" not in page.split("<script", 2)[1]


def test_an_audit_finds_the_frames_and_detections_of_the_report_split(carried_out):
    fake, results = carried_out
    runs = PlanRuns(results, fake.output, fake.tools)
    assert runs.splits.frames["report"] == {f"scene-0103_{3 * key}.pcd" for key in range(3, 7)}
    models = runs.models("4x", ["plain", "fitnet"], 1.0)
    assert [len(model.detections[0]) for model in models] == [4, 4, 4]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metric": "mAP"}, "metric: must be the main score of nuScenes' evaluation, 'NDS', got 'mAP'; correct it"),
        ({"metrics": {"scores": []}}, "metrics: not those of an evaluation ('summary'); make the file anew with the "
         "command that wrote it"),
        ({"metrics": NUSCENES_METRICS.to_json() | {"scores": []}}, "metrics: scores of nuScenes' evaluation must hold "
         "one or more, by the first of which detectors are compared, got none; add it"),
    ],
)  # fmt: skip
def test_metrics_that_do_not_fit_are_named(results, change, sentence):
    with pytest.raises(ResultsError) as error:
        parse_results({**results_content(results), **change})
    assert str(error.value) == sentence


def test_a_comparison_by_a_score_that_the_evaluation_has_not_is_named(results):
    content = results_content(results)
    content["comparisons"][0]["metric"] = "3d"
    with pytest.raises(ResultsError, match=r"^comparisons\[0\].metric: must be one of NDS, mAP, got '3d'; known:"):
        parse_results(content)


def test_results_that_tell_no_metrics_are_kittis():
    content = results_content(parse_results(small_results()))
    assert "metrics" not in content and parse_results(content).evaluation is KITTI_METRICS


def test_an_epoch_has_as_many_samples_as_balanced_resampling_draws(carried_out):
    """Cars stand in four frames and trucks in four: each of ten classes draws a tenth of the eight, at least one."""
    fake, results = carried_out
    parts = {"train": SplitConfig(infos=[TRAIN]), "search": SplitConfig(infos=[VAL], frames=3)}
    data = DataConfig(path="", version=nuscenes_files.VERSION, report=SplitConfig(infos=[VAL], first=3), **parts)
    splits = Splits(data, fake.root / "data", fake.root / "splits", results.classes)
    plain = Splits(data, fake.root / "data", fake.root / "splits")
    assert (splits.counts["train"], splits.samples("train"), plain.samples("train")) == (4, 2, 4)
    cfg = cfg_from_yaml_file(fake.root / STUDENT, EasyDict()).DATA_CONFIG
    cfg.update(VERSION=nuscenes_files.VERSION, INFO_PATH={"train": [TRAIN], "test": [VAL]}, DATA_AUGMENTOR=[])
    assert NuScenesDataset(cfg, results.classes, True, fake.root / "data").num_frames() == 2
    macs = {run.method: run.training_macs for run in results.runs if run.student and run.length == 1}
    assert macs[PLAIN] == 3_000_000 * 2 * 2  # of a step, samples, epochs


def test_frames_that_only_a_teacher_labels_come_once_in_an_epoch(carried_out):
    fake, results = carried_out
    infos = {"train": SplitConfig(infos=[TRAIN], frames=1), "unlabelled": SplitConfig(infos=[TRAIN], first=1)}
    infos |= {"search": SplitConfig(infos=[VAL], frames=3), "report": SplitConfig(infos=[VAL], first=3)}
    data = DataConfig(path="", version=nuscenes_files.VERSION, **infos)
    splits = Splits(data, fake.root / "data", fake.root / "more_splits", results.classes)
    cfg = cfg_from_yaml_file(fake.root / STUDENT, EasyDict()).DATA_CONFIG
    files = {"train": splits.files["train"], "unlabelled": splits.files["unlabelled"], "test": [VAL]}
    cfg.update(VERSION=nuscenes_files.VERSION, INFO_PATH=files, DATA_AUGMENTOR=[])
    frames = NuScenesDataset(cfg, results.classes, True, fake.root / "data").num_frames()
    assert splits.samples("train", unlabelled=True) == frames == splits.samples("train") + 3


def test_a_release_that_no_key_names_is_asked_for(tmp_path):
    fake = FakeNuScenesTools(tmp_path / "fake")
    data = {key: value for key, value in NUSCENES["DATA"].items() if key != "VERSION"}
    with pytest.raises(ConfigError, match="DATA.TRAIN.INFOS: .* does not exist; .*which DATA.VERSION names"):
        fake.carry_out(NUSCENES, {"DATA": data})


def test_a_release_of_a_data_set_without_releases_is_refused(tmp_path):
    fake = FakeTools(tmp_path / "fake")
    (fake.root / "data" / "v1").mkdir()
    for name in ("train.pkl", "val.pkl"):
        (fake.root / "data" / name).rename(fake.root / "data" / "v1" / name)
    plan = fake.write_plan()
    with pytest.raises(ConfigError, match="VERSION"):
        fake.carry_out({"DATA": {**PLAN_DATA, "VERSION": "v1"}})
    assert plan.is_file() and not fake.starts()


PLAN_DATA = {
    "PATH": "../data",
    "TRAIN": {"INFOS": ["train.pkl"]},
    "SEARCH": {"INFOS": ["val.pkl"], "FRAMES": 16},
    "REPORT": {"INFOS": ["val.pkl"], "FIRST": 16},
}


def test_fake_detections_differ_by_what_is_found(carried_out):
    """Else the comparisons above would compare nothing."""
    fake, results = carried_out
    found = {
        run.id: sum(len(anno["score"]) for anno in read_pickle(fake.results(run.id)[0]))
        for run in results.runs
        if run.report
    }
    assert len(set(found.values())) > 2 and np.min(list(found.values())) > 0
