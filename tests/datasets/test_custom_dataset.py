"""The code and the YAML of docs/CUSTOM_DATASET_TUTORIAL.md and docs/GETTING_STARTED.md, as they stand there."""

import re

import numpy as np
import pytest
import yaml

from pcdet.datasets import build_dataloader
from pcdet.registry import AUGMENTORS, DATASETS, build_from_cfg


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.S)


@pytest.fixture
def forget():
    """Takes what a test registers out of the registries."""
    kept = {registry: dict(registry._classes) for registry in (DATASETS, AUGMENTORS)}
    yield
    for registry, classes in kept.items():
        registry._classes.clear()
        registry._classes.update(classes)


def test_the_tutorials_data_set_trains_as_it_is_written(repo_root, tmp_path, forget):
    tutorial = repo_root / "docs" / "CUSTOM_DATASET_TUTORIAL.md"
    exec(compile(blocks(tutorial, "python")[0], str(tutorial), "exec"), {"__name__": "my_dataset"})
    config = yaml.safe_load(blocks(tutorial, "yaml")[0])
    for name in ("points", "labels", "ImageSets"):
        (tmp_path / name).mkdir()
    for split, frames in (("train", "ab"), ("val", "c")):
        (tmp_path / "ImageSets" / f"{split}.txt").write_text("\n".join(frames))
        for frame in frames:
            cloud = np.random.default_rng(ord(frame)).uniform(-50, 50, (500, 4)) * [1, 1, 0.02, 1]
            np.save(tmp_path / "points" / f"{frame}.npy", cloud)
            (tmp_path / "labels" / f"{frame}.txt").write_text("5 2 -1 4 1.8 1.5 0.3 Car\n9 2 -1 1 1 2 0 Tree\n")
    options = {"root_path": tmp_path, "workers": 0, "seed": 0}
    for training in (True, False):
        dataset, loader, _ = build_dataloader(
            config["DATA_CONFIG"], config["CLASS_NAMES"], 2, False, training=training, **options
        )
        batch = next(iter(loader))
        assert dataset.grid_size.tolist() == [640, 640, 1]
        assert batch["gt_boxes"].shape == (len(dataset), 1, 8) and len(batch["voxels"]) > 0
    np.testing.assert_allclose(batch["gt_boxes"][0, 0], [5, 2, -1, 4, 1.8, 1.5, 0.3, 1])


def test_the_guides_augmentor_works_as_it_is_written(repo_root, forget):
    guide = repo_root / "docs" / "GETTING_STARTED.md"
    exec(compile(blocks(guide, "python")[-1], str(guide), "exec"), {"__name__": "my_augmentor"})
    augmentor = build_from_cfg({"NAME": "random_point_dropout", "DROP_PROB": 0.5}, AUGMENTORS)
    sample = augmentor({"points": np.zeros((1000, 4))}, np.random.default_rng(0))
    assert 400 < len(sample["points"]) < 600
