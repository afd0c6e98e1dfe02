"""Velocities of labels: nuscenes-devkit's rule, the same in info files and in the evaluation."""

import numpy as np
import pytest
from support import nuscenes_files

from pcdet.datasets.nuscenes.evaluation.ground_truth import read_ground_truth
from pcdet.datasets.nuscenes.infos import InfoMaker
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.datasets.nuscenes.velocities import velocities_of


def truck_at(tables: Tables, sample: int) -> dict:
    return tables.get("sample_annotation", f"scene-0061 {sample} moving")


# The truck moves at (4, 3) m/s, so it has gone (2, 1.5) m from one label to the next; the clock says otherwise.
@pytest.mark.parametrize(
    ("seconds", "speeds"),
    [  # times of the three samples; the first's, the middle's and the last's share of the true speed
        ((0.0, 0.5, 1.0), (1, 1, 1)),
        ((0.0, 1.5, 3.0), (1 / 3, 1 / 3, 1 / 3)),
        ((0.0, 1.6, 2.0), (None, 1 / 2, 5 / 4)),  # 1.6 s are too long for one neighbour, 2 s are not for two
        ((0.0, 1.6, 3.1), (None, None, 1 / 3)),
        ((0.0, 0.0, 0.5), (None, 2, 1)),  # no time has gone
    ],
)
def test_a_velocity_is_taken_between_labels_at_most_a_second_and_a_half_apart(release, seconds, speeds):
    def set_times(rows):
        for row in rows:
            if row["token"].startswith("scene-0061"):
                row["timestamp"] = round(seconds[int(row["token"][-1])] * 1e6)

    nuscenes_files.change_table(release, "sample", set_times)
    tables = Tables(release / nuscenes_files.VERSION, nuscenes_files.VERSION)
    expected = [[np.nan] * 3 if share is None else [4 * share, 3 * share, 0] for share in speeds]
    found = velocities_of(tables, [truck_at(tables, sample) for sample in range(3)])
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_infos_and_the_evaluation_have_the_same_velocities(nuscenes_root):
    tables = Tables(nuscenes_root, "v1.0-mini")
    sample = tables.rows("sample")[20]
    info = InfoMaker(tables, 1, labelled=True).make(sample)
    truth = read_ground_truth(tables, [sample["token"]])
    rows = [row for row in tables.rows("sample_annotation") if row["sample_token"] == sample["token"]]
    of_token = {row["token"]: velocity for row, velocity in zip(rows, velocities_of(tables, rows), strict=True)}
    to_global = np.linalg.inv(info["ref_from_car"] @ info["car_from_global"])[:3, :3]
    from_infos = info["gt_boxes_velocity"] @ to_global.T
    expected = [of_token[token] for token in info["gt_boxes_token"].tolist()]
    np.testing.assert_allclose(from_infos, expected, atol=1e-9)
    in_truth = {tuple(v) for v in truth.boxes.velocity.tolist() if v[0] == v[0]}
    assert in_truth and in_truth <= {tuple(v[:2]) for v in of_token.values()}
