"""Rows of several masks, and frames brought to the host, at once."""

import torch

from pcdet.utils.transfer import on_host, rows_where


def test_rows_of_several_masks_are_those_of_each_alone(device):
    masks = [torch.tensor(mask, dtype=torch.bool, device=device) for mask in ([0, 1, 1], [], [0, 0], [1], [1, 0, 1])]
    assert [rows.tolist() for rows in rows_where(masks)] == [[1, 2], [], [], [0], [0, 2]]
    assert [rows.tolist() for rows in rows_where(masks[1:2])] == [[]]
    assert rows_where([]) == []


def test_frames_come_to_the_host_as_they_are(device):
    boxes, scores = torch.rand(5, 7, device=device), torch.rand(5, device=device, dtype=torch.float64)
    frames = [{"boxes": boxes[a:b], "scores": scores[a:b], "name": str(a)} for a, b in ((0, 2), (2, 2), (2, 5))]
    found = on_host(frames)
    assert [frame["name"] for frame in found] == ["0", "2", "2"]
    for key, whole in (("boxes", boxes), ("scores", scores)):
        assert [len(frame[key]) for frame in found] == [2, 0, 3]
        assert all(frame[key].device.type == "cpu" for frame in found)
        assert torch.equal(torch.cat([frame[key] for frame in found]), whole.cpu())
    assert on_host([]) == []
