"""Order, seeds, collation, and the loader over all of it."""

import logging
import multiprocessing
import random

import numpy as np
import pytest
import torch
from support import kitti_files

from pcdet.datasets import build_dataloader
from pcdet.datasets.collate import collate_batch
from pcdet.datasets.kitti.kitti_dataset import KittiDataset
from pcdet.datasets.seeding import EpochSampler, generator_for, seed_worker

CLASSES = ["Car", "Pedestrian", "Cyclist"]


def config():
    augmented = {"DISABLE_AUG_LIST": ["placeholder"], "AUG_CONFIG_LIST": kitti_files.AUGMENTORS}
    return kitti_files.dataset_cfg(DATA_AUGMENTOR=augmented)


def batches(root, workers=0, seed=7, epoch=0, rank=0, training=True, batch_size=2, **options):
    dataset, loader, sampler = build_dataloader(
        config(), CLASSES, batch_size, False, root_path=root, workers=workers, seed=seed, training=training, **options
    )
    dataset.set_seed(seed, rank)
    dataset.set_epoch(epoch)
    sampler.set_epoch(epoch)
    return list(loader)


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, b[key], err_msg=key)


# --------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize(("length", "world"), [(10, 1), (10, 3), (2, 4), (0, 2), (1, 1)])
def test_all_processes_together_visit_every_sample(length, world):
    parts = [list(EpochSampler(length, shuffle=True, seed=1, rank=r, world_size=world)) for r in range(world)]
    assert len({len(part) for part in parts}) == 1
    visited = [i for group in zip(*parts, strict=True) for i in group]
    assert set(visited) == set(range(length))
    assert len(visited) - length < world
    in_order = [list(EpochSampler(length, shuffle=False, seed=1, rank=r, world_size=world)) for r in range(world)]
    interleaved = [i for group in zip(*in_order, strict=True) for i in group]
    assert interleaved[:length] == list(range(length)), "results of the processes interleave to the order of the data"


def test_each_epoch_and_seed_has_its_own_order():
    def order(seed, epoch):
        sampler = EpochSampler(50, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0) != order(1, 1) != order(2, 1)
    with pytest.raises(ValueError, match="rank"):
        EpochSampler(5, shuffle=False, seed=0, rank=2, world_size=2)


def test_generators_of_different_purposes_and_keys_are_apart():
    numbers = {generator_for(p, s, *k).integers(2**60) for p in (0, 1) for s in (0, 1) for k in ((0,), (1,), (0, 1))}
    assert len(numbers) == 12


# --------------------------------------------------------------------------------------------------------------- seeds


def test_batches_do_not_depend_on_the_number_of_workers(prepared_kitti):
    assert_same(batches(prepared_kitti, workers=0), batches(prepared_kitti, workers=2))


def test_workers_see_the_epoch(prepared_kitti):
    for epoch in (0, 3):
        assert_same(batches(prepared_kitti, workers=0, epoch=epoch), batches(prepared_kitti, workers=1, epoch=epoch))


@pytest.mark.parametrize("change", [{"seed": 8}, {"epoch": 1}, {"rank": 1}])
def test_seed_epoch_and_rank_change_the_samples(prepared_kitti, change):
    def rotations(**options):
        return {
            f: r for b in batches(prepared_kitti, **options) for f, r in zip(b["frame_id"], b["noise_rot"], strict=True)
        }

    first, second = rotations(), rotations(**change)
    assert first == rotations() and first.keys() == second.keys()
    assert all(first[frame] != second[frame] for frame in first)


def test_testing_repeats_itself_whatever_the_epoch(prepared_kitti):
    first = batches(prepared_kitti, training=False, seed=None or 0)
    assert_same(first, batches(prepared_kitti, training=False, seed=0, epoch=4, rank=1))
    assert [f for b in first for f in b["frame_id"]] == ["000004", "000005"]


def test_without_a_seed_one_is_drawn_and_logged(prepared_kitti, caplog):
    with caplog.at_level(logging.INFO, "pcdet"):
        datasets = [build_dataloader(config(), CLASSES, 2, False, root_path=prepared_kitti, workers=0)[0] for _ in "ab"]
        build_dataloader(config(), CLASSES, 2, False, root_path=prepared_kitti, workers=0, training=False)
    drawn = [r.message for r in caplog.records if "No seed was given" in r.message]
    assert len(drawn) == 2 and drawn[0] != drawn[1]
    assert str(datasets[0].seed) in drawn[0]


class Draws(torch.utils.data.Dataset):
    seed, epoch, rank = 3, 0, 0

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return random.random(), np.random.random(), torch.rand(()).item()


def test_global_generators_of_workers_are_seeded_apart_and_again_alike():
    def draw(**facts):
        dataset = Draws()
        vars(dataset).update(facts)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=2, worker_init_fn=seed_worker, collate_fn=lambda x: x
        )
        return list(loader)

    first = draw()
    assert len({number for row in first for number in row}) == 6
    assert first == draw() != draw(epoch=1)
    assert draw(rank=1) != first


def test_many_epochs_may_be_one_long_one(prepared_kitti):
    merged = batches(prepared_kitti, merge_all_iters_to_one_epoch=True, total_epochs=3)
    assert len(merged) == 6
    frames = [f for b in merged for f in b["frame_id"]]
    assert sorted(frames) == sorted(["000000", "000001", "000002", "000003"] * 3)
    rotations = [r for b in merged for r in b["noise_rot"]]
    assert len(set(rotations)) == 12
    dataset = KittiDataset(config(), CLASSES, root_path=prepared_kitti)
    dataset.merge_all_iters_to_one_epoch(epochs=3)
    assert len(dataset) == 12
    dataset.merge_all_iters_to_one_epoch(merge=False)
    assert len(dataset) == 4


def _dist_worker(rank, root, port, queue):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    dataset, loader, sampler = build_dataloader(config(), CLASSES, 1, True, root_path=root, workers=0)
    queue.put((rank, dataset.seed, dataset.rank, [b["frame_id"][0] for b in loader]))
    dist.destroy_process_group()


def test_two_processes_share_the_seed_and_divide_the_frames(prepared_kitti):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")  # spawned ones import torch again, for seconds
    queue = context.Queue()
    processes = [context.Process(target=_dist_worker, args=(r, prepared_kitti, port, queue)) for r in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=90) for _ in processes)
    for process in processes:
        process.join()
    assert results[0][1] == results[1][1]
    assert [r[2] for r in results] == [0, 1]
    assert sorted(results[0][3] + results[1][3]) == ["000000", "000001", "000002", "000003"]


# ------------------------------------------------------------------------------------------------------------- batches


def sample(frame, points=3, voxels=2, boxes=1, **more):
    return {
        "frame_id": frame,
        "points": np.full((points, 4), int(frame), dtype=np.float32),
        "voxels": np.zeros((voxels, 5, 4), dtype=np.float32),
        "voxel_coords": np.full((voxels, 3), 7, dtype=np.int32),
        "voxel_num_points": np.ones(voxels, dtype=np.int32),
        "gt_boxes": np.full((boxes, 8), int(frame), dtype=np.float32),
        "calib": object(),
        "use_lead_xyz": True,
        "image_shape": np.array([375, 1242], dtype=np.int32),
        **more,
    }


def test_a_batch_has_openpcdets_form():
    batch = collate_batch([sample("1"), sample("2", points=0, voxels=0, boxes=0), sample("3", points=2, boxes=3)])
    assert batch["batch_size"] == 3
    assert batch["points"].shape == (5, 5) and batch["points"].dtype == np.float32
    assert batch["points"][:, 0].tolist() == [0, 0, 0, 2, 2] and batch["points"][:, 1].tolist() == [1, 1, 1, 3, 3]
    assert batch["voxel_coords"].tolist() == [[0, 7, 7, 7]] * 2 + [[2, 7, 7, 7]] * 2
    assert batch["voxels"].shape == (4, 5, 4) and batch["voxel_num_points"].shape == (4,)
    assert batch["gt_boxes"].shape == (3, 3, 8)
    assert batch["gt_boxes"][:, :, 0].tolist() == [[1, 0, 0], [0, 0, 0], [3, 3, 3]]
    assert isinstance(batch["calib"], list) and len(batch["calib"]) == 3
    assert batch["frame_id"].tolist() == ["1", "2", "3"] and batch["frame_id"].dtype.kind == "U"
    assert batch["use_lead_xyz"].tolist() == [True] * 3
    assert batch["image_shape"].shape == (3, 2) and batch["image_shape"].dtype == np.int32


def test_images_of_different_sizes_and_metadata_are_joined():
    images = [np.ones((2, 3, 3), dtype=np.float32), np.ones((4, 2, 3), dtype=np.float32)]
    batch = collate_batch(
        [sample("1", images=images[0], metadata={"t": 1}), sample("2", images=images[1], metadata={})]
    )
    assert batch["images"].shape == (2, 4, 3, 3) and batch["images"].sum() == 18 + 24
    assert batch["metadata"].dtype == object and batch["metadata"][0] == {"t": 1}


def test_a_sample_that_does_not_fit_is_named():
    with pytest.raises(
        ValueError, match=r"collating 'image_shape' of the frames \['1', '2'\], shapes \[\(2,\), \(3,\)\]"
    ):
        collate_batch([sample("1"), sample("2", image_shape=np.zeros(3))])
    with pytest.raises(ValueError, match=r"collating 'points' .*\(3, 4\), \(3, 5\)"):
        collate_batch([sample("1"), sample("2") | {"points": np.zeros((3, 5))}])
    with pytest.raises(ValueError, match=r"collating 'extra': the frames \['1'\] of the batch \['1', '2'\]"):
        collate_batch([sample("1"), sample("2", extra=1)])
    with pytest.raises(ValueError, match="at least one"):
        collate_batch([])


def test_a_batch_goes_to_a_device(prepared_kitti):
    from pcdet.utils.common_utils import batch_to_device

    batch = batch_to_device(batches(prepared_kitti)[0], "cpu")
    for key in ("points", "voxels", "voxel_coords", "voxel_num_points", "gt_boxes", "lidar_aug_matrix", "flip_x"):
        assert batch[key].dtype == torch.float32, key
    assert batch["image_shape"].dtype == torch.int32
