import shutil
from pathlib import Path

import pytest
from support import kitti_files, nuscenes_files

from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.datasets.nuscenes.create_infos import create_nuscenes_infos


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
