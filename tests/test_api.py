"""Building, loading and placing detectors: ``pcdet.api``, without any data set."""

import re

import numpy as np
import pytest
import torch
import yaml
from easydict import EasyDict

from pcdet.api import Detector, build_detector, load_teacher, place
from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.errors import BadFrameError
from pcdet.datasets.point_folder import PointClouds, PointFolder
from pcdet.registry import ConfigError
from pcdet.utils.common_utils import batch_to_device
from pcdet.utils.native_ops import NoKernelError
from pcdet.utils.weights import MisfitError


@pytest.fixture
def files(repo_root, tmp_path):
    """A PointPillars of 2 k weights: its file, the file of a student of half its width, its data set, a checkpoint."""
    base = yaml.safe_load((repo_root / "tools/cfgs/simulated_models/pointpillar.yaml").read_text())
    base["DATA_CONFIG"].update(POINT_CLOUD_RANGE=[0, -10.24, -3, 20.48, 10.24, 1])
    base["_BASE_CONFIG_"] = str(repo_root / "tools" / base["_BASE_CONFIG_"])  # whatever the copy is called
    base["MODEL"]["WIDTH"] = 0.25
    cfg_file, student_file, ckpt = (tmp_path / name for name in ("teacher.yaml", "student.yaml", "teacher.pth"))
    cfg_file.write_text(yaml.safe_dump(base))
    losses = [{"NAME": "FitNet", "FEATURE": "spatial_features_2d"}]
    kd = {"TEACHER": {"CFG": str(cfg_file), "CKPT": str(ckpt)}, "LOSSES": losses}
    student_file.write_text(yaml.safe_dump({**base, "MODEL": {**base["MODEL"], "WIDTH": 0.125}, "KD": kd}))
    cfg = read(cfg_file)
    clouds = PointClouds(cfg.DATA_CONFIG, cfg.CLASS_NAMES)
    torch.manual_seed(0)
    model = build_detector(cfg, clouds)
    torch.nn.init.zeros_(model.dense_head.conv_cls.bias)  # every anchor scores about one half
    torch.save({"model_state": model.state_dict()}, ckpt)
    return EasyDict(cfg=str(cfg_file), student=str(student_file), clouds=clouds, ckpt=str(ckpt))


def read(path):
    return cfg_from_yaml_file(path, EasyDict())


def cloud(rows=500):
    points = np.random.default_rng(0).random((rows, 4), dtype=np.float32)
    return points * np.array([20, 10, 2, 1], dtype=np.float32) - np.array([0, 5, 2, 0], dtype=np.float32)


# --------------------------------------------------------------------------------------------------------------- place


def test_a_device_that_the_ops_are_not_built_for_is_refused_before_a_model_is_on_it(monkeypatch):
    """No build has kernels for XPU, which stands for a GPU under ops for the CPU alone."""
    model = torch.nn.Linear(1, 1)
    assert place(model, torch.device("cpu")) is model
    monkeypatch.setattr("pcdet.utils.places.INSTALLED", False)
    with pytest.raises(NoKernelError, match="xpu:0, and .* built without XPU: .* `make setup FORCE_CUDA=1`, or"):
        place(model, torch.device("xpu", 0))
    assert model.weight.device.type == "cpu"
    monkeypatch.setattr("pcdet.utils.places.INSTALLED", True)
    with pytest.raises(NoKernelError, match=r"`FORCE_CUDA=1 pip wheel \. .*, with nvcc installed`"):
        place(model, torch.device("xpu", 0))


# ------------------------------------------------------------------------------------------------------------- teacher


def test_the_teacher_is_built_from_its_file_and_checkpoint(files):
    teacher, own_input = load_teacher(read(files.student), files.clouds)
    assert own_input is None, "it reads the student's voxels"
    expected = torch.load(files.ckpt, weights_only=True)["model_state"]
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_teacher_without_file_and_weights_is_refused_for_both(files):
    cfg = read(files.student)
    cfg.KD.TEACHER = {}
    with pytest.raises(ConfigError) as error:
        load_teacher(cfg, files.clouds)
    assert len(error.value.problems) == 2 and "--teacher_ckpt" in str(error.value)


def test_a_teacher_of_other_classes_is_refused(files):
    cfg = read(files.student)
    pedestrians = PointClouds(cfg.DATA_CONFIG, ["Pedestrian"])
    with pytest.raises(ConfigError, match=r"has CLASS_NAMES \['Car', .*\], the student \['Pedestrian'\]"):
        load_teacher(cfg, pedestrians)


def test_a_checkpoint_that_does_not_fit_the_teacher_is_told_as_the_teachers(files, tmp_path):
    torch.save({"model_state": {"head.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    cfg = read(files.student)
    cfg.KD.TEACHER.CKPT = str(tmp_path / "other.pth")
    with pytest.raises(MisfitError) as error:
        load_teacher(cfg, files.clouds)
    assert str(error.value).startswith(f"the teacher of {files.cfg}: {tmp_path / 'other.pth'} is not for this")


# ------------------------------------------------------------------------------------------------------------ detector


def test_a_detector_finds_what_the_model_itself_finds_in_a_file_and_in_an_array(files, tmp_path):
    cloud().tofile(tmp_path / "one.bin")
    np.save(tmp_path / "one.npy", cloud().astype(np.float64))
    cfg = read(files.cfg)
    folder = PointFolder(cfg.DATA_CONFIG, cfg.CLASS_NAMES, tmp_path / "one.bin")
    model = build_detector(cfg, folder, ckpt=files.ckpt).eval()
    with torch.no_grad():
        (expected,), _ = model(batch_to_device(folder.collate_batch([folder[0]]), "cpu"))
    detector = Detector.from_checkpoint(files.cfg, files.ckpt, device="cpu")
    assert len(expected["pred_boxes"]) > 0
    for given in (cloud(), tmp_path / "one.bin", str(tmp_path / "one.npy")):
        found = detector(given)
        np.testing.assert_array_equal(found.boxes, expected["pred_boxes"].numpy())
        np.testing.assert_array_equal(found.scores, expected["pred_scores"].numpy())
        assert found.names == [cfg.CLASS_NAMES[label - 1] for label in expected["pred_labels"].tolist()]


def test_a_detector_leaves_out_boxes_below_the_score_and_the_array_as_it_is(files):
    detector, points = Detector.from_checkpoint(read(files.cfg), files.ckpt, device="cpu"), cloud()
    scores = detector(points).scores
    limit = float(np.median(scores))
    assert sorted(detector(points, score_thresh=limit).scores) == sorted(scores[scores >= limit])
    np.testing.assert_array_equal(points, cloud())


def test_an_array_of_other_columns_or_with_a_gap_is_refused_with_what_is_wanted(files):
    detector = Detector.from_checkpoint(files.cfg, files.ckpt, device="cpu")
    wanted = re.escape("the point cloud must hold an array of shape (N, 4) ['x', 'y', 'z', 'intensity'], got [500, 3]")
    with pytest.raises(BadFrameError, match=wanted):
        detector(cloud()[:, :3])
    points = cloud()
    points[7, 2] = np.nan
    with pytest.raises(BadFrameError, match="the point cloud holds NaN or infinite values"):
        detector(points)


def test_a_detector_names_what_is_not_there(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        Detector.from_checkpoint(tmp_path / "nowhere.yaml", files.ckpt)
    with pytest.raises(ConfigError, match="MODEL: missing"):
        Detector.from_checkpoint({"CLASS_NAMES": ["Car"], "DATA_CONFIG": {}}, files.ckpt)
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'tpu'"):
        Detector.from_checkpoint(files.cfg, files.ckpt, device="tpu")


def test_the_example_of_the_guide_runs_as_it_stands(files, repo_root, tmp_path, monkeypatch, capsys):
    page = (repo_root / "docs/GETTING_STARTED.md").read_text()
    (example,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "pcdet.api" in text)
    (cfg_file,) = re.findall(r'"(cfgs/\S+\.yaml)"', example)
    (ckpt,) = re.findall(r'"(\S+\.pth)"', example)
    (cloud_file,) = re.findall(r'"(\S+\.bin)"', example)
    target = tmp_path / cfg_file
    target.parent.mkdir(parents=True)
    target.write_text((tmp_path / "teacher.yaml").read_text())  # a small detector under the name of the large one
    (tmp_path / "teacher.pth").rename(tmp_path / ckpt)
    cloud().tofile(tmp_path / cloud_file)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "GETTING_STARTED.md", "exec"), {})
    assert capsys.readouterr().out.split()[0] in read(files.cfg).CLASS_NAMES
