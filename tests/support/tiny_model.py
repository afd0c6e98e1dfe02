"""A model file so small that the real commands train it in a second, on simulated frames."""

from __future__ import annotations

from pathlib import Path

import yaml

from pcdet.testing import tiny_kitti
from support import warm_python

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def write_tiny_model(folder: Path, frames: int = 6) -> Path:
    """A PointPillars of 2 k weights on a tenth of the usual range; two thirds of the frames are to be trained on.

    Args:
        folder: for ``tiny.yaml`` and the data folder ``kitti``; must exist.
        frames: of both splits together.
    """
    data = tiny_kitti(folder / "kitti", frames=frames)
    dataset_cfg = TOOLS / "cfgs/dataset_configs/simulated_kitti_dataset.yaml"
    command = ["-m", "pcdet.datasets.kitti.kitti_dataset", "create_kitti_infos", dataset_cfg, "--data_path", data]
    prepared = warm_python.shared().start([*command, "--workers", "1"], cwd=TOOLS.parent)
    text = prepared.stdout.read()
    assert prepared.wait() == 0, text
    base = yaml.safe_load((TOOLS / "cfgs/simulated_models/pointpillar.yaml").read_text())
    base["DATA_CONFIG"].update(DATA_PATH=str(data), POINT_CLOUD_RANGE=[0, -10.24, -3, 20.48, 10.24, 1])
    base["MODEL"]["WIDTH"] = 0.125
    base["OPTIMIZATION"].update(NUM_EPOCHS=4, BATCH_SIZE_PER_GPU=2)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(base))
    return folder / "tiny.yaml"
