import pickle
import shutil
from pathlib import Path

import pytest
from easydict import EasyDict
from support import kitti_files, nuscenes_files

from pcdet.config import cfg_from_yaml_file
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos
from pcdet.testing import tiny_kitti


@pytest.fixture(scope="session")
def written_kitti(tmp_path_factory) -> Path:
    """A folder in KITTI's layout without infos. Not to be changed."""
    return kitti_files.write_folder(tmp_path_factory.mktemp("kitti"))


@pytest.fixture
def raw_kitti(written_kitti, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written_kitti, tmp_path / "kitti"))


@pytest.fixture(scope="session")
def prepared_kitti(written_kitti, tmp_path_factory) -> Path:
    """The folder with its infos and database. Not to be changed."""
    root = Path(shutil.copytree(written_kitti, tmp_path_factory.mktemp("prepared") / "kitti"))
    create_kitti_infos(kitti_files.dataset_cfg(), CLASS_NAMES, root, workers=0)
    return root


@pytest.fixture(scope="session")
def partly_labelled_kitti(tmp_path_factory, repo_root) -> Path:
    """Four training frames, the first three in labelled.pkl, the fourth in more.pkl, and two others.

    Not to be changed.
    """
    root = tiny_kitti(tmp_path_factory.mktemp("partly_labelled") / "kitti", frames=6)
    cfg = cfg_from_yaml_file(repo_root / "tools/cfgs/dataset_configs/simulated_kitti_dataset.yaml", EasyDict())
    create_kitti_infos(cfg, CLASS_NAMES, root, root, workers=0)
    infos = pickle.loads((root / "kitti_infos_train.pkl").read_bytes())
    (root / "labelled.pkl").write_bytes(pickle.dumps(infos[:3]))
    (root / "more.pkl").write_bytes(pickle.dumps(infos[3:]))
    return root


@pytest.fixture(scope="session")
def written_release(tmp_path_factory) -> Path:
    """A release without infos. Not to be changed."""
    return nuscenes_files.write_release(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture
def release(written_release, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written_release, tmp_path / "nuscenes"))


@pytest.fixture(scope="session")
def prepared_release(written_release, tmp_path_factory) -> Path:
    """The release with its infos and database. Not to be changed."""
    root = Path(shutil.copytree(written_release, tmp_path_factory.mktemp("prepared") / "nuscenes"))
    create_nuscenes_infos(root, nuscenes_files.VERSION, nuscenes_files.SWEEPS, workers=0)
    return root
