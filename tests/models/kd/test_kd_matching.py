"""Where rows stand, how many points lie behind them, and which rows of two detectors match."""

import numpy as np
import pytest
import torch
from kd_detectors import NEAR, VOXELS, network, second, second_cfg, voxel_batch
from kd_pairs import pp

from pcdet.models.kd.features.feature import Feature, Voxels
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.features.matching import match_rows
from pcdet.models.kd.features.taps import Taps
from pcdet.models.kd.model_outputs import ModelOutputs

KITTI_VOXELS = Geometry(point_cloud_range=(0, -40, -3, 70.4, 40, 1), grid_size=(1408, 1600, 40))
KITTI_PILLARS = Geometry(point_cloud_range=(0, -39.68, -3, 69.12, 39.68, 1), grid_size=(432, 496, 1))


# --------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((41, 1600, 1408), (0.05, 0.05, 0.1)),
        ((21, 800, 704), (0.1, 0.1, 0.2)),
        ((11, 400, 352), (0.2, 0.2, 0.4)),
        ((5, 200, 176), (0.4, 0.4, 0.8)),
        ((2, 200, 176), (0.4, 0.4, 2.0)),
        ((1, 100, 88), (0.8, 0.8, 4.0)),
    ],
)
def test_cells_of_seconds_layers_are_whole_numbers_of_voxels(shape, size):
    assert KITTI_VOXELS.grid(shape).size == pytest.approx(size)


def test_a_detector_without_voxels_has_cells_all_the_same():
    grid = Geometry(point_cloud_range=(0, 0, 0, 8, 4, 2), grid_size=None).map_grid(2, 8)
    assert grid.size == (1, 2, 2)


def test_positions_fall_into_the_cells_whose_centres_they_are():
    grid = KITTI_VOXELS.grid((5, 200, 176))
    cells = torch.stack([torch.randint(n, (500,)) for n in grid.shape], dim=1)
    found, inside = grid.cells_at(grid.centres(cells))
    assert torch.equal(found, cells) and inside.all()
    _, inside = grid.cells_at(torch.tensor([[70.41, 0, 0], [1, -40.01, 0], [1, 0, 1.01], [1, 0, 0.9]]))
    assert inside.tolist() == [False, False, False, True]


# ----------------------------------------------------------------------------------------------------------- counts


@pytest.fixture(scope="module")
def seconds_taps():
    """Batch and taps of a SECOND after its forward."""
    model, batch = second(0.125).eval(), voxel_batch()
    names = ("multi_scale_3d_features.x_conv3", "backbone_3d.conv3", "encoded_spconv_tensor", "spatial_features")
    with Taps(model, names) as taps, torch.no_grad():
        out = model.forward_features(dict(batch))
    return batch, ModelOutputs(model, out, taps.complete(out), Geometry.of(VOXELS))


@pytest.mark.parametrize(
    ("tap", "strides"),
    [
        ("multi_scale_3d_features.x_conv3", (4, 4, 4)),
        ("encoded_spconv_tensor", (16, 8, 8)),
        ("spatial_features", (40, 8, 8)),
    ],
)
def test_points_behind_a_row_are_those_of_all_voxels_in_its_cell(seconds_taps, tap, strides):
    batch, outputs = seconds_taps
    feature = outputs.feature(tap)
    expected: dict[tuple, float] = {}
    for (frame, z, y, x), count in zip(batch["voxel_coords"].tolist(), batch["voxel_num_points"].tolist(), strict=True):
        z, y, x = (int(v) // s for v, s in zip((z, y, x), strides, strict=True))
        cell = (frame, min(z, 1) if tap == "encoded_spconv_tensor" else z, y, x)  # the upper of two takes what is above
        expected[cell] = expected.get(cell, 0) + count
    size = np.array(VOXELS.voxel_size) * strides[::-1]
    cells = np.floor((feature.xyz.numpy() - np.array(NEAR[:3])) / size).astype(int)[:, ::-1]
    found = {
        (frame, *cell): count
        for frame, cell, count in zip(feature.batch_idx.tolist(), cells.tolist(), feature.count.tolist(), strict=True)
        if count
    }
    assert found == expected


@pytest.mark.parametrize("height", [4.0, 6.0])
def test_cells_of_a_sparse_layer_are_as_many_voxels_as_its_strides_say(height):
    """OpenPCDet's 8x backbones halve all axes three times and the height once more, whatever is rounded on the way."""
    names = [f"multi_scale_3d_features.x_conv{i}" for i in (1, 2, 3, 4)] + ["encoded_spconv_tensor"]
    names += ["backbone_3d.conv3.0.0", "backbone_3d.conv_out"]
    facts = pp.dataset_facts((*NEAR[:5], NEAR[2] + height), voxel_size=(0.05, 0.05, 0.1))
    model, batch = network(second_cfg(0.125), facts, seed=0).eval(), voxel_batch()
    with Taps(model, names) as taps, torch.no_grad():
        out = model.forward_features(dict(batch), last="backbone_3d")
    outputs = ModelOutputs(model, out, taps.complete(out), Geometry.of(facts))
    expected = [(1, 1), (2, 2), (4, 4), (8, 8), (8, 16), (4, 4), (8, 16)]  # along x, z
    for name, (x, z) in zip(names, expected, strict=True):
        assert outputs.feature(name).grid.size == pytest.approx((0.05 * x, 0.05 * x, 0.1 * z)), name


def test_a_sparse_tensor_is_read_by_key_and_by_path(seconds_taps):
    _, outputs = seconds_taps
    by_key, by_path = outputs.feature("multi_scale_3d_features.x_conv3"), outputs.feature("backbone_3d.conv3")
    assert torch.equal(by_key.x, by_path.x) and torch.equal(by_key.cells, by_path.cells)
    tensor = outputs.taps["backbone_3d.conv3"]
    row = 7
    where = tensor.indices[by_key.rows[row]].tolist()
    assert torch.equal(by_key.x[row], tensor.features[by_key.rows[row]])
    assert by_key.xyz[row].tolist() == pytest.approx(
        [low + (cell + 0.5) * size for low, cell, size in zip(NEAR, where[:0:-1], (0.2, 0.2, 0.4), strict=False)]
    )


# --------------------------------------------------------------------------------------------------------- matching


def voxels(coords, geometry=None, order=None):
    """A feature whose two channels are the cell's number along x and y."""
    coords = torch.tensor(coords) if order is None else torch.tensor(coords)[order]
    geometry = geometry or Geometry(point_cloud_range=(0, 0, 0, 8, 8, 1), grid_size=(8, 8, 1))
    return Feature.from_voxels(coords[:, [3, 2]].float(), coords, geometry, 2)


def test_the_same_cells_are_matched_whatever_order_they_are_held_in():
    coords = [[0, 0, 1, 2], [0, 0, 3, 3], [1, 0, 0, 5], [1, 0, 7, 7]]
    matched = match_rows(voxels(coords), voxels(coords, order=[2, 0, 3, 1]))
    assert matched.teacher_rows is None and matched.logs == {}
    assert torch.equal(matched.student.x, matched.teacher.x)


def test_cells_that_only_one_side_has_are_left_out_and_the_share_is_told():
    student = voxels([[0, 0, 1, 2], [0, 0, 3, 3], [1, 0, 0, 5], [1, 0, 7, 7]])
    teacher = voxels([[0, 0, 1, 2], [0, 0, 4, 3], [1, 0, 7, 7], [1, 0, 7, 6]])
    matched = match_rows(student, teacher)
    assert matched.student.x.tolist() == matched.teacher.x.tolist() == [[2, 1], [7, 7]]
    assert matched.student.batch_idx.tolist() == matched.teacher.batch_idx.tolist() == [0, 1]
    assert float(matched.logs["matched"]) == 0.5


def test_voxels_of_another_size_match_the_one_that_holds_their_centre():
    fine = Geometry(point_cloud_range=(0, 0, 0, 8, 8, 1), grid_size=(16, 16, 1))
    student = voxels([[0, 0, 3, 5], [0, 0, 2, 4], [1, 0, 15, 0]], fine)
    matched = match_rows(student, voxels([[0, 0, 1, 2], [1, 0, 7, 1]]))
    assert matched.teacher.x.tolist() == [[2, 1], [2, 1]] and matched.student.x.tolist() == [[4, 2], [5, 3]]


def test_nothing_in_common_is_no_rows():
    matched = match_rows(voxels([[0, 0, 1, 2]]), voxels([[1, 0, 1, 2]]))
    assert len(matched.student) == len(matched.teacher) == 0 and float(matched.share) == 0


def position_map(geometry, height, width, frames=2):
    """A map that holds its cells' positions: x, y and the frame."""
    feature = Feature.from_bev(torch.zeros(frames, 1, height, width), geometry)
    values = torch.cat([feature.xyz[:, :2], feature.batch_idx[:, None].float()], dim=1)
    return Feature.from_bev(values.view(frames, height, width, 3).permute(0, 3, 1, 2), geometry)


@pytest.mark.parametrize(
    ("student", "teacher", "share"),
    [
        ((KITTI_PILLARS, 248, 216), (KITTI_VOXELS, 200, 176), 1.0),
        # 0.2 of 40 m at each side and 1.28 of 70.4 m ahead are outside the pillars' range, by the cells' centres
        ((KITTI_VOXELS, 200, 176), (KITTI_PILLARS, 248, 216), (198 / 200) * (173 / 176)),
    ],
)
def test_maps_of_other_ranges_and_cells_match_where_they_stand(student, teacher, share):
    matched = match_rows(position_map(*student), position_map(*teacher))
    student_rows, teacher_rows = matched.student.x, matched.teacher.x
    torch.testing.assert_close(teacher_rows[:, 2], student_rows[:, 2])
    # A map that is linear in the position is interpolated exactly between the teacher's outer centres.
    geometry, height, width = teacher
    grid = geometry.map_grid(height, width)
    low, high, size = (torch.tensor(v[:2]) for v in (grid.low, grid.high, grid.size))
    between = student_rows[:, :2].clamp(low + size / 2, high - size / 2)
    torch.testing.assert_close(teacher_rows[:, :2], between, rtol=0, atol=1e-3)
    part = torch.arange(0, len(student_rows), 997)
    torch.testing.assert_close(matched.teacher.take(part), teacher_rows[part])
    torch.testing.assert_close(matched.teacher.select(part).x, teacher_rows[part])
    assert float(matched.share) == pytest.approx(share)
    assert torch.equal(matched.teacher.xyz, matched.student.xyz)


def test_a_rectangle_of_a_map_is_read_from_it_row_by_row():
    whole = Feature.from_bev(torch.randn(2, 3, 4, 5), Geometry(point_cloud_range=(0, 0, 0, 5, 4, 1), grid_size=None))
    index = torch.tensor([0, 7, 19, 20, 33])
    part = whole.select(index)
    assert part.dense is None and torch.equal(part.x, whole.x[index])
    assert torch.equal(part.take(torch.tensor([1, 3])), whole.x[[7, 20]])


def test_other_points_match_the_nearest_of_their_frame():
    def points(rows):
        rows = torch.tensor(rows)
        return Feature.from_points(rows[:, 1:2], rows, 2)

    student = points([[0, 1.0, 0, 0], [0, 5.0, 0, 0], [1, 2.0, 0, 0]])
    assert match_rows(student, points([[0, 1.0, 0, 0], [0, 5.0, 0, 0], [1, 2.0, 0, 0]])).teacher_rows is None
    matched = match_rows(student, points([[0, 4.0, 0, 0], [0, 1.5, 0, 0], [1, 9.0, 0, 0]]))
    assert matched.teacher.x.flatten().tolist() == [1.5, 4.0, 9.0]


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            lambda: position_map(KITTI_PILLARS, 8, 8),
            lambda: voxels([[0, 0, 1, 2]]),
            "the student's tap is a map .* give TEACHER_FEATURE a map too",
        ),
        (
            lambda: position_map(KITTI_PILLARS, 8, 8, frames=1),
            lambda: voxels([[0, 0, 1, 2]]),
            "the student has 1 frames and the teacher 2",
        ),
        (
            lambda: voxels([[0, 0, 1, 2], [1, 0, 1, 2]]),
            lambda: voxels(
                [[0, 3, 1, 2], [1, 2, 1, 2]], Geometry(point_cloud_range=(0, 0, 0, 8, 8, 1), grid_size=(8, 8, 4))
            ),
            "a pillar would meet the one at half its height; give TEACHER_FEATURE a map",
        ),
    ],
)
def test_what_cannot_be_matched_in_the_first_step_is_an_error(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        match_rows(student(), teacher())


def test_voxels_without_counts_are_no_voxels():
    assert Voxels.of({"voxel_coords": torch.zeros(1, 4)}) is None
    assert Voxels.of(pp.random_batch(pp.dataset_facts(pp.TINY_RANGE))).coords.dtype == torch.int64
