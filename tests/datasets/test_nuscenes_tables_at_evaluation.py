"""What an evaluation needs of a release besides its infos is asked for before the first frame is inferred."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from easydict import EasyDict
from support import nuscenes_files
from torch.utils.data import DataLoader

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.datasets.nuscenes.layout import info_name
from pcdet.datasets.nuscenes.nuscenes_dataset import NuScenesDataset
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch

SETTINGS = EvalSettings(class_names=DETECTION_CLASSES, progress=False)


class Counting(torch.nn.Module):
    """Finds nothing, and counts the batches that it is given."""

    batches = 0

    def forward(self, batch_dict):
        self.batches += 1
        nothing = {"pred_boxes": torch.zeros(0, 9), "pred_scores": torch.zeros(0), "pred_labels": torch.zeros(0).long()}
        return [nothing] * batch_dict["batch_size"], {}


def loader_of(root: Path, version: str, split: str, config: Path) -> DataLoader:
    cfg = cfg_from_yaml_file(config, EasyDict())
    cfg.VERSION, cfg.MAX_SWEEPS = version, 1
    cfg.INFO_PATH = {"train": [info_name(split, 1)], "test": [info_name(split, 1)]}
    dataset = NuScenesDataset(cfg, list(DETECTION_CLASSES), False, root)
    return DataLoader(dataset, batch_size=1, collate_fn=dataset.collate_batch)


@pytest.fixture
def config(repo_root):
    return repo_root / "tools/cfgs/dataset_configs/nuscenes_dataset.yaml"


@pytest.fixture
def labelled(release):
    create_nuscenes_infos(release, nuscenes_files.VERSION, 1, workers=0, database=False)
    return release


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (".", r"has no tables of version v1.0-mini .*; unpack the metadata of the release there"),
        ("sample_annotation.json", r"sample_annotation\.json is not there; copy it from the release"),
        ("instance.json", r"instance\.json is not there; copy it from the release"),
    ],
)
def test_labelled_infos_without_tables_are_refused_before_a_frame_is_inferred(labelled, config, tmp_path, lost, said):
    loader = loader_of(labelled, nuscenes_files.VERSION, "val", config)
    path, model = labelled / nuscenes_files.VERSION / nuscenes_files.VERSION / lost, Counting()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=f"the infos have labels, which the evaluation reads from the tables.*{said}"):
        eval_one_epoch(model, loader, SETTINGS, epoch_id=1, result_dir=tmp_path / "out")
    assert model.batches == 0


def test_labelled_infos_with_tables_are_scored(labelled, config, tmp_path):
    model, loader = Counting(), loader_of(labelled, nuscenes_files.VERSION, "val", config)
    result = eval_one_epoch(model, loader, SETTINGS, epoch_id=1, result_dir=tmp_path / "out")
    assert model.batches == nuscenes_files.SCENES["scene-0103"] and result["mAP"] == 0


def test_a_split_without_labels_needs_no_tables_and_gets_a_result_file_without_a_score(config, tmp_path):
    root = nuscenes_files.write_release(tmp_path / "data", "v1.0-test", {"scene-0077": 2})
    create_nuscenes_infos(root, "v1.0-test", 1, workers=0)
    shutil.rmtree(root / "v1.0-test" / "v1.0-test")
    model = Counting()
    result = eval_one_epoch(
        model, loader_of(root, "v1.0-test", "test", config), SETTINGS, epoch_id=1, result_dir=tmp_path / "out"
    )
    assert model.batches == 2 and result == {}
    written = json.loads((tmp_path / "out/final_result/results_nusc.json").read_text())
    assert written["results"] == {"scene-0077 0": [], "scene-0077 1": []}
    assert not (tmp_path / "out/final_result/metrics_summary.json").exists()
