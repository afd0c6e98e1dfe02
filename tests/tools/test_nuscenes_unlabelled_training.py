"""The shipped student on simulated nuScenes scenes of which only some are labelled: its teacher labels the others."""

import pytest
import torch
from easydict import EasyDict

from pcdet import api
from pcdet.cli import train, train_kd
from pcdet.cli.session import open_session
from pcdet.config import cfg_from_yaml_file
from pcdet.datasets import build_dataset
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.datasets.nuscenes.layout import info_name
from pcdet.datasets.simulated import write_nuscenes
from pcdet.engine.runtime import seed_process
from pcdet.utils import safe_pickle

RELEASE, SWEEPS, LABELLED, FRAMES = "v1.0-mini", 3, 2, 6
STUDENT = "cfgs/simulated_nuscenes_models/kd/centerpoint_pillar_unlabelled.yaml"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Six training frames in two scenes, the first two frames labelled."""
    small = dict(train_scenes=2, val_scenes=1, key_frames=3, sweeps=2, azimuths=120, reach=22.0, progress=False)
    root = write_nuscenes(tmp_path_factory.mktemp("scenes") / "set", release=RELEASE, **small, workers=1)
    create_nuscenes_infos(root, RELEASE, SWEEPS, workers=0)
    infos = safe_pickle.load(root / RELEASE / info_name("train", SWEEPS))
    safe_pickle.dump(infos[:LABELLED], root / RELEASE / info_name("labelled", SWEEPS))
    safe_pickle.dump(infos[LABELLED:], root / RELEASE / info_name("unlabelled", SWEEPS))
    return root


@pytest.fixture
def student_file(scenes, tmp_path):
    """The shipped file on these scenes."""
    data = f"{{DATA_PATH: {scenes}, VERSION: {RELEASE}}}"
    path = tmp_path / "student.yaml"
    path.write_text(f"_BASE_CONFIG_: {STUDENT}\nDATA_CONFIG: {data}\nOPTIMIZATION: {{BATCH_SIZE_PER_GPU: 3}}\n")
    return path


@pytest.fixture
def teacher_file(student_file, tmp_path):
    """A checkpoint of an untrained teacher that is sure of objects, which move, everywhere."""
    cfg = cfg_from_yaml_file(student_file, EasyDict())
    teacher_cfg = cfg_from_yaml_file(cfg.KD.TEACHER.CFG, EasyDict())
    torch.manual_seed(1)
    model = api.build_detector(teacher_cfg, build_dataset(cfg.DATA_CONFIG, cfg.CLASS_NAMES, training=False))
    for branch in model.dense_head.heads_list:
        torch.nn.init.normal_(branch["hm"][-1].weight, std=2.0)
        torch.nn.init.constant_(branch["vel"][-1].bias, 3.0)
    torch.save({"model_state": model.state_dict(), "version": "pcdet+test"}, tmp_path / "teacher.pth")
    return tmp_path / "teacher.pth"


def test_a_student_takes_steps_on_its_teachers_boxes_and_velocities(student_file, teacher_file, tmp_path):
    words = ["--cfg_file", student_file, "--teacher_ckpt", teacher_file, "--output_dir", tmp_path / "out"]
    words += ["--workers", 0, "--device", "cpu", "--threads", 1]
    args = train.parse_args(list(map(str, words)), distil=True)
    session = open_session(args)
    seed_process(0)
    _, trainer = train.make_trainer(session, train_kd.build_student_with_teacher, 1, 0)
    assert len(trainer.loader.dataset) == FRAMES
    seen = 0
    for batch in trainer.loader:
        labelled = [bool(boxes.any()) for boxes in batch["gt_boxes"]]
        trainer.train_step(batch)
        assert trainer.last.tb_dict["kd/labels/added"] > 0
        targets = trainer.model.student.dense_head.forward_ret_dict["target_dicts"]
        for frame, has_labels in enumerate(labelled):
            if not has_labels:
                objects = targets["masks"][0][frame].bool()
                velocities = targets["target_boxes"][0][frame][objects][:, -2:]
                assert len(velocities) and velocities.norm(dim=1).min() > 1, "the teacher's, in metres a second"
                seen += 1
    assert seen == FRAMES - LABELLED
