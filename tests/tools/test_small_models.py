"""The model files for machines without a GPU take a training step on a few simulated frames, from file to gradients."""

import pytest
import torch
from commands import run
from easydict import EasyDict

from pcdet.api import build_detector, load_teacher
from pcdet.config import cfg_from_list, cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.models.kd import build_distiller
from pcdet.testing import tiny_kitti
from pcdet.utils.common_utils import batch_to_device

STUDENTS = {  # file under kd/, its teacher's file, and how many times fewer parameters it has: a width's square, about
    "pointpillar_small_4x": ("pointpillar_small", 4),
    "second_small_4x": ("second_small", 4),
    "pointrcnn_small_16x": ("pointrcnn_small", 16),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, repo_root):
    """A prepared folder of three simulated frames, two to train on."""
    folder = tiny_kitti(tmp_path_factory.mktemp("small") / "kitti", frames=3)
    script = ["-m", "pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos"]
    run([*script, "tools/cfgs/dataset_configs/kitti_dataset.yaml", "--data_path", folder], cwd=repo_root)
    return folder


@pytest.fixture
def opened(data, tools, monkeypatch):
    """Reads a model file and opens its training frames: (configuration, data set, a batch of two)."""
    monkeypatch.chdir(tools)

    def open_file(name):
        cfg = cfg_from_yaml_file(f"cfgs/kitti_models/{name}.yaml", EasyDict())
        cfg_from_list(["DATA_CONFIG.DATA_PATH", str(data)], cfg)
        dataset, loader, _ = build_dataloader(
            dataset_cfg=cfg.DATA_CONFIG, class_names=cfg.CLASS_NAMES, batch_size=2, dist=False, workers=0,
            training=True, seed=0,
        )  # fmt: skip
        torch.manual_seed(0)
        return cfg, dataset, batch_to_device(next(iter(loader)), "cpu")

    return open_file


def has_gradient(parameter):
    return parameter.grad is not None and bool(parameter.grad.isfinite().all())


def step(model, batch):
    """The loss of a batch; every parameter that learns must get a finite gradient."""
    loss = model.train()(batch)[0]["loss"]
    loss.backward()
    bad = [name for name, p in model.named_parameters() if p.requires_grad and not has_gradient(p)]
    assert bad == []
    return float(loss.detach())


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("student", STUDENTS)
def test_a_small_detector_and_its_distilled_student_take_a_step(student, opened, tmp_path):
    teacher_file, smaller = STUDENTS[student]
    if teacher_file == "second_small":
        pytest.importorskip("spconv", reason="spconv is not installed")
    cfg, dataset, batch = opened(teacher_file)
    teacher = build_detector(cfg, dataset)
    assert 0 < step(teacher, batch) < 100
    torch.save({"model_state": teacher.state_dict()}, tmp_path / "teacher.pth")

    cfg, dataset, batch = opened(f"kd/{student}")
    cfg.KD.TEACHER.CKPT = str(tmp_path / "teacher.pth")
    student = build_detector(cfg, dataset)
    small_teacher, own_input = load_teacher(cfg, dataset)
    distiller = build_distiller(cfg, student, dataset, teacher=small_teacher, own_input=own_input)
    assert 0 < step(distiller, batch) < 100
    assert 0.8 * smaller < size(teacher) / size(distiller.student) < 1.25 * smaller
