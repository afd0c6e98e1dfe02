import json
from types import SimpleNamespace

import pytest
import torch
from commands import run
from easydict import EasyDict

from pcdet import api
from pcdet.cli import compare as command
from pcdet.cli import compare_page
from pcdet.config import cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.engine import precision
from pcdet.experiments.quickstart.comparison import Row
from pcdet.models import build_network
from pcdet.registry import ConfigError
from pcdet.utils.cpu_features import Processor
from pcdet.utils.weights import MisfitError

# Products counted by hand for the tiny model: maps of 64 x 64, 32 x 32 and 16 x 16 cells with 4, 8 and 16 channels;
# 1 + 1 convolutions of 3 x 3 in each; branches of 4 channels each by kernels of 1, 2 and 4; 72 outputs.
BLOCKS = 9 * (4096 * 2 * 4 * 4 + 1024 * (4 * 8 + 8 * 8) + 256 * (8 * 16 + 16 * 16))
BRANCHES = 4096 * 4 * 4 + 1024 * 8 * 4 * 4 + 256 * 16 * 4 * 16
HEAD = 4096 * 12 * 72


@pytest.fixture(scope="module")
def checkpoints(cfg_file, tmp_path_factory):
    """Two untrained models that find something, in a training's folders; a run record lies beside the second."""
    cfg = cfg_from_yaml_file(cfg_file, EasyDict())
    dataset, _, _ = build_dataloader(cfg.DATA_CONFIG, cfg.CLASS_NAMES, 1, False, workers=0, training=False)
    files = []
    for name in ("first", "second"):
        path = tmp_path_factory.mktemp(name) / "ckpt" / "checkpoint_epoch_1.pth"
        path.parent.mkdir()
        model = build_network(cfg.MODEL, len(cfg.CLASS_NAMES), dataset)
        with torch.no_grad():
            model.dense_head.conv_cls.bias.zero_()  # an untrained head is sure of nothing but background
            model.dense_head.conv_box.weight.mul_(0.1)  # boxes near their anchors overlap with objects
        torch.save({"model_state": model.state_dict(), "version": "pcdet+test"}, path)
        files.append(path)
    (files[1].parent.parent / "run.json").write_text(json.dumps({"train_cpu_s": 12.5}))
    return files


QUICK = ["--device", "cpu", "--workers", "0", "--timed_frames", "1", "--no_memory"]


def compare(args):
    command.compare(command.parse_args(args))


def results_of_test_py(cfg_file, ckpt, folder, tools, before=""):
    """What test.py says of a checkpoint, in the batches and with the threads of compare.py; ``before`` is code."""
    args = ["--cfg_file", cfg_file, "--ckpt", ckpt, "--output_dir", folder, "--device", "cpu", "--workers", "0"]
    run(command_line("test", before, *args, "--batch_size", "4", "--threads", "1"), cwd=tools)
    (record,) = folder.rglob("run.json")
    (result,) = json.loads(record.read_text())["results"].values()
    return result


def command_line(name, before, *args):
    """A command of tools/ that runs code of its own before it begins."""
    return ["-c", f"{before}\nfrom pcdet.cli.{name} import main\nmain()", *args]


# An untrained model finds nothing right. This one finds every object, some centimetres aside: each number has a value.
NEARLY_RIGHT = """
import torch
from pcdet.models.detectors import Detector3DTemplate
from pcdet.models.model_utils.post_processing import generate_recall_record

def post_processing(self, batch):
    found, dice = [], torch.Generator().manual_seed(7)
    for truth in batch["gt_boxes"]:
        truth = truth[truth[:, 7] > 0]
        boxes = truth[:, :7] + torch.randn(len(truth), 7, generator=dice) * torch.tensor([.05, .05, .03, 0, 0, 0, .1])
        scores = torch.rand(len(truth), generator=dice)
        found.append({"pred_boxes": boxes, "pred_scores": scores, "pred_labels": truth[:, 7].long()})
    boxes = [one["pred_boxes"] for one in found]
    return found, generate_recall_record(boxes, None, batch["gt_boxes"], [0.3, 0.5, 0.7])

Detector3DTemplate.post_processing = post_processing
"""


def test_rows_hold_a_number_a_seed_and_what_training_cost(checkpoints, cfg_file, tmp_path, capsys):
    teacher, student = checkpoints
    models = [("teacher", teacher), ("student", student), ("student", student), ("kd", student), ("kd", teacher)]
    args = [word for name, path in models for word in ("--model", name, str(cfg_file), str(path))]
    report, picture = tmp_path / "new" / "results.json", tmp_path / "new" / "comparison.png"
    page = tmp_path / "new" / "page.html"
    compare([*args, *QUICK, "--json", str(report), "--plot", str(picture), "--page", str(page), "--importance", "1"])

    audit = json.loads(page.with_suffix(".json").read_text())
    assert [(m["name"], m["role"], m["seeds"]) for m in audit["models"]] == [
        ("teacher", "teacher", 1), ("student", "control", 2), ("kd", "student", 2),
    ]  # fmt: skip
    assert {(g["student"], g["control"]) for g in audit["gains"]} == {("kd", "student")}
    assert "kd beside teacher" in page.read_text()
    rows = json.loads(report.read_text())["rows"]
    assert list(rows) == ["teacher", "student", "kd"]
    assert [len(rows[name]["3d"]["moderate"]) for name in rows] == [1, 2, 2]
    assert rows["teacher"]["train_cpu_s"] is None and rows["student"]["train_cpu_s"] == 12.5
    assert rows["kd"]["train_cpu_s_per_seed"] == [12.5, None]
    assert all(
        row["ms_per_frame"] > 0 and set(row["per_class"]) == {"Car", "Pedestrian", "Cyclist"} for row in rows.values()
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "gain in moderate mAP" in printed and "over student" in printed and "train CPU s" in printed


def test_detections_are_those_of_test_py_in_a_folder_for_each_model_and_seed(checkpoints, cfg_file, tmp_path, tools):
    teacher, student = checkpoints
    report, folder = tmp_path / "results.json", tmp_path / "found"
    models = [("teacher", teacher), ("student+slices", teacher), ("student+slices", student)]
    args = [word for name, path in models for word in ("--model", name, str(cfg_file), str(path))]
    compare([*args, *QUICK, "--json", str(report), "--detections", str(folder)])

    written = json.loads(report.read_text())
    assert written["detections"] == {
        "teacher": [str(folder / "teacher/seed0/result.pkl")],
        "student+slices": [str(folder / f"student+slices/seed{k}/result.pkl") for k in range(2)],
    }
    assert written["models"] == [[name, str(cfg_file), str(path)] for name, path in models]
    results_of_test_py(cfg_file, student, tmp_path / "tested", tools)
    (of_test_py,) = (tmp_path / "tested").rglob("result.pkl")
    for path, same in zip(sorted(folder.rglob("result.pkl")), (False, True, False), strict=True):
        assert (path.read_bytes() == of_test_py.read_bytes()) is same, path


def test_every_number_is_that_of_test_py_on_the_same_checkpoint(checkpoints, cfg_file, tmp_path, tools):
    report = tmp_path / "results.json"
    args = [*QUICK, "--model", "teacher", cfg_file, checkpoints[0], "--json", report]
    printed = run(command_line("compare", NEARLY_RIGHT, *args), cwd=tools)
    expected = results_of_test_py(cfg_file, checkpoints[0], tmp_path / "tested", tools, NEARLY_RIGHT)
    row = json.loads(report.read_text())["rows"]["teacher"]
    assert row["results"] == [expected]

    numbers = 0
    for overlaps, suffix in (("strict", ""), ("loose", "_loose")):
        for points in ("R40", "R11"):
            for metric, key in (("3d", "3d"), ("bev", "bev"), ("aos", "aos"), ("bbox", "image")):
                for level in ("easy", "moderate", "hard"):
                    of = [expected[f"{c}_{key}{suffix}/{level}_{points}"] for c in ("Car", "Pedestrian", "Cyclist")]
                    numbers += sum(value > 0 for value in of)
                    assert row["mean_ap"][overlaps][points][metric][level] == [sum(of) / 3]
    assert numbers > 100, "of 144: zeros would be equal whatever was computed"
    assert row["3d"] == row["mean_ap"]["strict"]["R40"]["3d"]
    recall = {key.removeprefix("recall/"): [value] for key, value in expected.items() if key.startswith("recall/")}
    assert row["recall"] == recall and row["recall"]["rcnn_0.3"] > [0.0]
    for title in ("mAP (R40)  ", "mAP (R11)  ", "mAP (R40), loose", "mAP (R11), loose", "recall (%)", "aos easy"):
        assert title in printed


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a" * 256])
def test_a_name_that_is_no_folder_name_is_refused_where_detections_are_asked_for(name, capsys):
    args = ["--model", "teacher", "t.yaml", "t.pth", "--model", name, "s.yaml", "s.pth"]
    assert command.parse_args(args).model[1][0] == name
    with pytest.raises(SystemExit):
        command.parse_args([*args, "--detections", "found"])
    assert f"{name!r} cannot be a folder's name" in " ".join(capsys.readouterr().err.split("error: ")[1].split())


def test_a_checkpoint_of_another_model_is_told_with_its_row(checkpoints, cfg_file, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"model_state": {"head.weight": torch.zeros(3)}}, other)
    args = ["--model", "odd one", str(cfg_file), str(other), "--device", "cpu", "--workers", "0"]
    with pytest.raises(MisfitError) as caught:
        compare(args)
    said = str(caught.value)
    assert said.startswith(f"--model odd one ({cfg_file}): {other} is not for this PointPillar: 0 of ")
    assert "allow_partial" not in said, "compare.py has no such flag"


def test_rows_are_measured_in_the_precision_and_layout_asked_for(checkpoints, cfg_file, tmp_path, monkeypatch):
    report, seen = tmp_path / "r.json", []
    build = api.build_detector

    def watched(*args, **kwargs):
        model = build(*args, **kwargs)
        model.dense_head.conv_cls.register_forward_hook(lambda *passed: seen.append(passed[-1]))
        return model

    monkeypatch.setattr(api, "build_detector", watched)
    model = ["--model", "t", str(cfg_file), str(checkpoints[0])]
    settings = [*QUICK, "--json", str(report)]
    for flags, dtype, layout in (
        ([], torch.float32, "contiguous"),
        (["--channels_last"], torch.float32, "channels_last"),
        (["--use_amp", "--amp_dtype", "bf16"], torch.bfloat16, "channels_last"),
    ):
        seen.clear()
        compare([*model, *settings, *flags])
        facts = json.loads(report.read_text())
        assert facts["precision"].endswith(str(dtype).removeprefix("torch.")) and facts["layout"] == layout
        for out in (seen[0], seen[-1]):  # evaluated, timed
            assert out.dtype is dtype
            assert out.is_contiguous(memory_format=torch.channels_last) is (layout == "channels_last")
    with pytest.raises(ConfigError, match="fp16 training needs a GPU"):
        compare([*model, *settings, "--use_amp", "--amp_dtype", "fp16"])


def test_each_precision_asked_for_has_rows_and_detections_of_its_own(
    checkpoints, cfg_file, tmp_path, monkeypatch, capsys
):
    native = Processor("a processor with bf16", ("AVX2", "AVX-512", "AVX512_BF16"))
    monkeypatch.setattr(precision, "read_processor", lambda: native)
    report, folder = tmp_path / "r.json", tmp_path / "found"
    flags = [
        "--precisions",
        "fp32",
        "bf16",
        "--batch_sizes",
        "1",
        "2",
        "--json",
        str(report),
        "--detections",
        str(folder),
    ]
    compare(["--model", "t", str(cfg_file), str(checkpoints[0]), *QUICK, *flags])
    written = json.loads(report.read_text())
    other = written["other_precisions"]["bf16"]
    assert (written["precision"], other["precision"]) == ("float32", "torch.bfloat16")
    files = (folder / "t/seed0/result.pkl", folder / "t/seed0/bf16/result.pkl")
    assert ([str(file) for file in files]) == [*written["detections"]["t"], *other["detections"]["t"]]
    assert files[0].read_bytes() != files[1].read_bytes()
    for rows in (written["rows"], other["rows"]):
        stages = rows["t"]["ms_by_stage"]
        assert list(stages) == ["1", "2"] and rows["t"]["ms_per_frame"] == stages["1"]["forward"]["median"] > 0
    printed = capsys.readouterr().out
    assert printed.count("ms per frame (quartiles)") == 2 and printed.index("==== fp32") < printed.index("==== bf16")


def test_bf16_without_arithmetic_for_it_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # hides it where there is any
    with pytest.raises(ConfigError, match=r"--precisions bf16: this .* bf16 arithmetic .*; leave bf16 out, or insist"):
        compare(["--model", "t", "no.yaml", "no.pth", "--device", "cpu", "--precisions", "fp32", "bf16"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precisions", "fp32", "--use_amp"], "leave --use_amp and --amp_dtype out"),
        (["--batch_sizes", "1", "0"], "must be at least 1, got 0"),
        (["--timed_frames", "0"], "must be at least 1, got 0"),
    ],
)
def test_flags_that_say_nothing_to_measure_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        command.parse_args(["--model", "t", "t.yaml", "t.pth", *flags])
    assert message in capsys.readouterr().err


def test_a_page_whose_numbers_would_overwrite_the_rows_is_refused_before_anything_is_read(tmp_path):
    model = ["--model", "t", "no.yaml", "no.pth", "--device", "cpu"]
    with pytest.raises(ConfigError, match=r"numbers go into .*out\.json"):
        compare([*model, "--json", f"{tmp_path}/out.json", "--page", f"{tmp_path}/out.html"])


def test_the_page_is_of_the_student_wherever_it_stands_and_the_teacher_stays_one(monkeypatch):
    """Rows keep the order in which unknown names are given, so a control may come last."""
    page = {}
    monkeypatch.setattr(compare_page, "make_audit", lambda *given: page.update(given=given))
    monkeypatch.setattr(compare_page, "write_json", lambda *_: None)
    monkeypatch.setattr(compare_page, "write_page", lambda *_, **rest: page.update(rest))
    contender = SimpleNamespace(model=None, dataset=None, conditions=command.Conditions())
    facts = {"data_path": "", "device": "", "versions": {"python": "3"}}
    for names, controls, title, roles in (
        (["big", "kd", "base"], ["base"], "kd beside big", ["teacher", "student", "control"]),
        (["big", "kd", "base"], ["big"], "base beside big", ["teacher", "student", "student"]),
        (["big", "kd"], ["kd"], "kd beside big", ["teacher", "student"]),
        (["big"], [], "big", ["teacher"]),
    ):
        flags = [word for name in names for word in ("--model", name, "c", "w")]
        flags += [word for name in controls for word in ("--control", name)]
        args = command.parse_args([*flags, "--page", "page.html"])
        contenders = dict.fromkeys(names, contender)
        compare_page.write_comparison_page(args, contenders, dict.fromkeys(names, [[]]), facts)
        _, _, models, _, detectors = page["given"]
        assert page["title"] == title and [model.role for model in models] == roles
        assert " beside ".join(reversed(detectors)) == title


def test_models_of_other_classes_are_refused_by_name():
    rows = {"teacher": Row(), "student": Row()}
    car, walker = ({f"{name}_3d/moderate_R40": 1.0} for name in ("Car", "Pedestrian"))
    contender = SimpleNamespace(name="student", cfg_file="s.yaml")
    command.check_classes(contender, car, rows)
    rows["teacher"].per_class["Car"] = {}
    command.check_classes(contender, car, rows)
    with pytest.raises(ConfigError, match=r"--model student \(s.yaml\): .* on Pedestrian, but teacher on Car"):
        command.check_classes(contender, walker, rows)


def test_macs_are_those_counted_by_hand(checkpoints, cfg_file, tmp_path):
    report = tmp_path / "r.json"
    compare(["--model", "t", str(cfg_file), str(checkpoints[0]), *QUICK, "--json", str(report)])
    row = json.loads(report.read_text())["rows"]["t"]
    pillars = row["macs"] - BLOCKS - BRANCHES - HEAD
    # What is left is the pillar encoder: ten inputs, four outputs, a whole number of slots.
    assert pillars > 0 and pillars % 40 == 0


def test_models_of_other_frames_are_refused_by_name():
    measured, second = command.Measured(None), SimpleNamespace(name="student", cfg_file="student.yaml")
    command.check_frames(SimpleNamespace(name="teacher", cfg_file="teacher.yaml"), ["000001", "000002"], measured)
    command.check_frames(second, ["000002", "000001"], measured)
    said = (
        r"--model student \(student.yaml\): it is evaluated on 1 frames, the first row on 2, and frame 000001 belongs"
    )
    with pytest.raises(ConfigError, match=said):
        command.check_frames(second, ["000002"], measured)
