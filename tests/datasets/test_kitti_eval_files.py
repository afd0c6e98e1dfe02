"""Reading KITTI text files, OpenPCDet's table and keys, and the command."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pcdet.cli.evaluate_kitti import main
from pcdet.datasets.kitti.evaluate import evaluate_folders
from pcdet.datasets.kitti.kitti_object_eval_python import get_official_eval_result
from pcdet.datasets.kitti.kitti_object_eval_python.kitti_common import get_label_anno, get_label_annos

LABEL = "Car 0.00 0 -1.57 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 -1.62"
PEDESTRIAN = "Pedestrian 0.10 1 0.21 100.00 150.00 160.00 290.00 1.80 0.60 0.80 -5.00 1.70 12.00 0.10"
RESULT = LABEL + " 0.95"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name.lstrip('_')}.txt").write_text(text, newline="")
    return folder


def pair_of_folders(tmp_path, frames=3):
    names = [f"_{index:06d}" for index in range(frames)]
    labels = write(tmp_path / "label_2", **dict.fromkeys(names, f"{LABEL}\n{PEDESTRIAN}\n"))
    results = write(tmp_path / "data", **dict.fromkeys(names, f"{RESULT}\n{PEDESTRIAN} 0.5\n"))
    return labels, results


# ---- the reader


def test_an_annotation_has_openpcdets_keys_and_axes(tmp_path):
    anno = get_label_anno(write(tmp_path, _a=f"{RESULT}\n") / "a.txt")
    expected = {
        "name": ["Car"],
        "truncated": [0.0],
        "occluded": [0],
        "alpha": [-1.57],
        "bbox": [[614.24, 181.78, 727.31, 284.77]],
        "dimensions": [[4.15, 1.57, 1.73]],  # length, height, width
        "location": [[1.00, 1.75, 13.22]],
        "rotation_y": [-1.62],
        "score": [0.95],
    }
    assert {key: value.tolist() for key, value in anno.items()} == expected


def test_a_file_without_scores_gets_zeros_and_an_empty_one_keeps_its_shapes(tmp_path):
    label, empty = get_label_annos(write(tmp_path, _000001=f"{LABEL}\n", _000002="\n"), [1, "000002"])
    assert label["score"].tolist() == [0.0]
    assert empty["bbox"].shape == (0, 4) and empty["location"].shape == (0, 3) and len(empty["name"]) == 0


@pytest.mark.parametrize(
    "text",
    [
        f"{RESULT}\r\n{RESULT}\r\n",
        f"{RESULT}{RESULT}",
        f"\n \t\n{RESULT}\n\n{RESULT}",
        f"{RESULT} 7 8\n{RESULT} 7 8",
        f"{RESULT} track\n{RESULT} track\n",
        RESULT.replace("0.95", "9.5e-01") + "\n" + RESULT.replace("0.95", "+.95E+0"),
        f"{RESULT}\n{RESULT}".replace(" ", "\n"),
    ],
    ids=["crlf", "glued", "blank lines", "extra numbers", "extra words", "scientific", "one column a line"],
)
def test_any_layout_that_fscanf_reads_is_read(tmp_path, text):
    anno = get_label_anno(write(tmp_path, _a=text) / "a.txt")
    assert anno["name"].tolist() == ["Car", "Car"]
    assert anno["score"].tolist() == [0.95, 0.95]
    assert anno["rotation_y"].tolist() == [-1.62, -1.62]


def test_a_glued_label_is_not_taken_for_a_result(tmp_path):
    anno = get_label_anno(write(tmp_path, _a=LABEL + PEDESTRIAN) / "a.txt")
    assert anno["name"].tolist() == ["Car", "Pedestrian"]
    assert anno["alpha"].tolist() == [-1.57, 0.21]


def test_not_a_number_and_infinity_are_read(tmp_path):
    anno = get_label_anno(write(tmp_path, _a=RESULT.replace("13.22", "inf").replace("0.95", "nan")) / "a.txt")
    assert np.isinf(anno["location"][0, 2]) and np.isnan(anno["score"][0])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"{RESULT}\n{LABEL}\n{RESULT}\n", 2, "the last of them the score; after 'Car' come 14 and then 'Car"),
        (f"{RESULT}\n\n{RESULT[:40]}", 3, "come 7 and then the end of the file"),
        (f"{RESULT}\n{RESULT.replace('1.75', 'x')}\n", 2, "come 11 and then 'x 13.22"),
        (f"{RESULT}{LABEL}", 1, "come 14 and then the end of the file"),
        ("nonsense", 1, "after 'nonsense' come 0"),
    ],
)
def test_a_malformed_result_is_named_with_file_and_line(tmp_path, text, line, said):
    labels, results = pair_of_folders(tmp_path)
    write(results, _000001=text)
    with pytest.raises(ValueError) as error:
        evaluate_folders(labels, results)
    assert f"000001.txt, line {line}: a record must be a name and 15 numbers" in str(error.value)
    assert said in str(error.value)


# ---- the table and the keys


def test_the_table_is_openpcdets(tmp_path):
    labels, results = pair_of_folders(tmp_path, frames=2)
    text, _ = get_official_eval_result(get_label_annos(labels), get_label_annos(results), ["Pedestrian"])
    # two found of two: one of eleven points and one of forty (the first is dropped)
    assert text == (
        "Pedestrian AP@0.50, 0.50, 0.50:\n"
        "bbox AP:0.0000, 9.0909, 9.0909\nbev  AP:0.0000, 9.0909, 9.0909\n3d   AP:0.0000, 9.0909, 9.0909\n"
        "aos  AP:0.00, 9.09, 9.09\n"
        "Pedestrian AP_R40@0.50, 0.50, 0.50:\n"
        "bbox AP:0.0000, 2.5000, 2.5000\nbev  AP:0.0000, 2.5000, 2.5000\n3d   AP:0.0000, 2.5000, 2.5000\n"
        "aos  AP:0.00, 2.50, 2.50\n"
        "Pedestrian AP@0.50, 0.25, 0.25:\n"
        "bbox AP:0.0000, 9.0909, 9.0909\nbev  AP:0.0000, 9.0909, 9.0909\n3d   AP:0.0000, 9.0909, 9.0909\n"
        "aos  AP:0.00, 9.09, 9.09\n"
        "Pedestrian AP_R40@0.50, 0.25, 0.25:\n"
        "bbox AP:0.0000, 2.5000, 2.5000\nbev  AP:0.0000, 2.5000, 2.5000\n3d   AP:0.0000, 2.5000, 2.5000\n"
        "aos  AP:0.00, 2.50, 2.50\n"
    )


def test_the_flat_results_hold_openpcdets_keys_first_and_then_the_others(tmp_path):
    labels, results = pair_of_folders(tmp_path)
    gt, dt = get_label_annos(labels), get_label_annos(results)
    _, flat = get_official_eval_result(gt, dt, ["Car"])
    openpcdet = [
        f"Car_{metric}/{level}_R40"
        for metric in ("aos", "3d", "bev", "image")
        for level in ("easy", "moderate", "hard")
    ]
    assert list(flat)[:12] == openpcdet
    others = {key.replace("_R40", "_R11") for key in openpcdet}
    others |= {key.replace("/", "_loose/") for key in [*openpcdet, *others]}
    assert set(flat) == set(openpcdet) | others
    assert flat["Car_3d/easy_R40"] == pytest.approx(5.0)  # three of three found: two of forty points
    assert all(isinstance(value, float) for value in flat.values())


def test_classes_are_given_by_name_or_number_alone_or_together(tmp_path):
    labels, results = pair_of_folders(tmp_path)
    gt, dt = get_label_annos(labels), get_label_annos(results)
    for classes in ("Car", 0, ["car"], [0]):
        assert get_official_eval_result(gt, dt, classes) == get_official_eval_result(gt, dt, ["Car"])
    with pytest.raises(ValueError, match="no class 'Pedestrain'. Did you mean 'Pedestrian'\\? Known: Car, "):
        get_official_eval_result(gt, dt, ["Car", "Pedestrain"])
    with pytest.raises(ValueError, match="no class 'DontCare'"):
        get_official_eval_result(gt, dt, "DontCare")


def test_pr_detail_dict_receives_the_curves(tmp_path):
    labels, results = pair_of_folders(tmp_path)
    detail = {}
    classes = ["Car", "Cyclist"]
    get_official_eval_result(get_label_annos(labels), get_label_annos(results), classes, PR_detail_dict=detail)
    assert set(detail) == {"bbox", "bev", "3d", "aos"}
    for curves in detail.values():
        assert curves.shape == (2, 3, 2, 41)
        assert curves[0, :, :, 0].min() == 1 and curves[1].max() == 0


def test_annotations_that_do_not_fit_are_named(tmp_path):
    labels, results = pair_of_folders(tmp_path)
    gt, dt = get_label_annos(labels), get_label_annos(results)
    with pytest.raises(ValueError, match="must hold the same frames, got 3 and 2"):
        get_official_eval_result(gt, dt[:2], ["Car"])
    del dt[1]["score"]
    with pytest.raises(ValueError, match="annotation 1 must have the key 'score', it has name, "):
        get_official_eval_result(gt, dt, ["Car"])
    gt[2]["location"] = gt[2]["location"][:1]
    with pytest.raises(ValueError, match=r"annotation 2: 'location' must have shape \(2, 3\).*got \(1, 3\)"):
        get_official_eval_result(gt, get_label_annos(results), ["Car"])


# ---- the command


def test_the_command_prints_the_table_and_writes_all_numbers(tmp_path):
    labels, results = pair_of_folders(tmp_path)
    (results / "000002.txt").unlink()
    out = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "pcdet.datasets.kitti.evaluate", "--json", out]
    command += ["--label_path", labels, "--result_path", results]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Car AP_R40@0.70, 0.70, 0.70:\nbbox AP:2.5000, 2.5000, 2.5000\n" in shown
    assert shown.endswith("2 frames scored; 1 label files have no result file and were left out\n")
    written = json.loads(out.read_text())
    assert (written["frames"], written["unscored"]) == (2, 1)
    for overlaps in ("strict", "loose"):
        by_class = written[overlaps]["ap"]
        assert list(by_class) == ["Car", "Pedestrian", "Cyclist"]
        assert list(by_class["Car"]) == ["bbox", "bev", "3d", "aos"]
        assert by_class["Car"]["3d"]["moderate"] == pytest.approx({"R11": 100 / 11, "R40": 2.5})
        assert by_class["Cyclist"] == dict.fromkeys(["bbox", "bev", "3d", "aos"])
        assert len(written[overlaps]["curves"]["Car"]["3d"]["hard"]) == 41


def test_classes_and_split_file_choose_what_is_scored(tmp_path, capsys):
    labels, results = pair_of_folders(tmp_path)
    split = tmp_path / "val.txt"
    split.write_text("000002\n000000\n")
    main(["--label_path", str(labels), "--result_path", str(results), "--classes", "truck", "Car",
          "--label_split_file", str(split)])  # fmt: skip
    shown = capsys.readouterr().out
    assert shown.startswith("Truck AP@0.70, 0.70, 0.70:\n") and "Pedestrian" not in shown
    assert shown.endswith("\n2 frames scored\n")


def test_frames_without_their_file_are_named(tmp_path):
    labels, results = pair_of_folders(tmp_path, frames=14)
    split = tmp_path / "val.txt"
    split.write_text("\n".join(f"{index:06d}" for index in range(14)))
    for index in (3, 5):
        (results / f"{index:06d}.txt").unlink()
    with pytest.raises(ValueError, match="2 of 14 frames have no result file in .*data: 000003, 000005$"):
        evaluate_folders(labels, results, label_split_file=split)
    for path in sorted(labels.iterdir())[:12]:
        path.unlink()
    with pytest.raises(ValueError, match="10 of 12 frames have no label file in .*label_2: 000000, .*, 000011$"):
        evaluate_folders(labels, results)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--label_path", "nowhere"], "nowhere must be a folder of KITTI .txt files"),
        (["--classes", "Tram"], "has no class 'Tram'"),
        (["--label_split_file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_the_command_ends_with_one_line_on_a_mistake(tmp_path, change, said):
    labels, results = pair_of_folders(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["--label_path", str(labels), "--result_path", str(results), *change])
    assert str(stop.value).startswith("error: ") and said in str(stop.value)


def test_a_folder_without_results_is_an_error(tmp_path):
    labels, _ = pair_of_folders(tmp_path)
    with pytest.raises(ValueError, match="no frame to score: .*empty names none"):
        evaluate_folders(labels, write(tmp_path / "empty"))


def test_a_frame_asked_for_without_a_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="000007.txt is missing"):
        get_label_annos(write(tmp_path), [7])
