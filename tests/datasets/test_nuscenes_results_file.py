"""Result files of nuScenes: what is refused, and that every problem is named."""

import json

import pytest
from support.nuscenes_release import SAMPLES, detected, write_results

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.evaluation.results_file import read_results

CAR = detected("car", (1, 2, 3), velocity=(1, 0.5), score=0.25, attribute="vehicle.moving")


def test_boxes_are_read_in_the_order_of_the_file(tmp_path):
    boxes = [detected("bus", (9, 8, 7), sample=1), CAR]
    results = {SAMPLES[1]: [boxes[0]], SAMPLES[0]: [CAR]}
    table, meta = read_results(write_results(tmp_path / "r.json", [], results=results), SAMPLES)
    assert table.sample.tolist() == [1, 0] and table.class_id.tolist() == [2, 0]
    assert table.center.tolist() == [[9, 8, 7], [1, 2, 3]] and table.score.tolist() == [0.5, 0.25]
    assert table.attribute.tolist() == [-1, 5] and meta == {"use_lidar": True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"detection_name": "Car"}, "no detection_name 'Car'; there are car, truck"),
        ({"attribute_name": "vehicle.fast"}, "no attribute_name 'vehicle.fast'"),
        ({"detection_score": float("nan")}, "all of its numbers must be finite"),
        ({"velocity": [float("nan"), 0]}, "all of its numbers must be finite"),
        ({"translation": [1, 2]}, r"translation must be 3 numbers, got \[1, 2\]"),
        ({"size": [1, "2", 3]}, "size must be 3 numbers"),
        ({"size": [1, 0, 3]}, "size must be above 0"),
        ({"rotation": [0, 0, 0, 0]}, "rotation must not be 0"),
        ({"detection_score": None}, "detection_score must be a number, got None"),
        ({"sample_token": SAMPLES[1]}, "not that of the list it stands in"),
    ],
)
def test_a_box_that_is_none_is_named_with_its_sample_and_place(tmp_path, change, said):
    file = write_results(tmp_path / "r.json", [], results={SAMPLES[0]: [CAR, {**CAR, **change}], SAMPLES[1]: []})
    with pytest.raises(DataError, match=f"box 1 of sample {SAMPLES[0]}: .*{said}"):
        read_results(file, SAMPLES)


def test_all_problems_of_a_file_are_named_at_once(tmp_path):
    lacking = {key: value for key, value in CAR.items() if key not in ("size", "velocity")}
    results = {SAMPLES[0]: [CAR] * 501, "other": [lacking]}
    file = write_results(tmp_path / "r.json", [], results=results, meta=None)
    with pytest.raises(DataError) as caught:
        read_results(file, SAMPLES)
    said = "\n".join(caught.value.problems)
    for part in (
        f"1 of 2 samples have no entry in results (every sample needs one, without boxes []): {SAMPLES[1]}",
        "1 samples are not of the split: other",
        f"1 samples have more than 500 boxes, for instance {SAMPLES[0]}, which has 501",
        "meta must say which sensors were used, and is missing",
        "box 0 of sample other: it has no size, velocity",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"meta": {}, "results": {"sam', "is no JSON: .*write it again"),
        ("[]", "must hold"),
        ('{"meta": {}, "results": []}', "must hold"),
        ('{"meta": {}, "results": {"sample0": 3, "sample1": []}}', "1 samples have no list of boxes: sample0"),
        ('{"meta": {}, "results": {"sample0": [7.5], "sample1": []}}', "1 boxes are no objects .* of sample sample0"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, text, said):
    file = tmp_path / "r.json"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        read_results(file, SAMPLES)


def test_a_sample_that_comes_twice_is_refused(tmp_path):
    text = json.dumps({"meta": {}, "results": {SAMPLES[0]: [CAR], SAMPLES[1]: [], "again": [CAR]}})
    (tmp_path / "r.json").write_text(text.replace("again", SAMPLES[0]))
    with pytest.raises(DataError, match="1 boxes belong to no sample: a token comes twice"):
        read_results(tmp_path / "r.json", SAMPLES)
