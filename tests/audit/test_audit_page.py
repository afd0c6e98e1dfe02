"""What an audit's page holds: its sentences, figures and scenes, and that its file stays within its limit."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.synthetic_audit import CONTROL, STUDENT, settings_plan, synthetic_audit, synthetic_comparison
from support.synthetic_results import small_results

from pcdet.audit.page.assembly import sections, write_page
from pcdet.audit.page.audit_plots import curve_plots, error_plot, group_gain_plot
from pcdet.audit.page.blocks import Plot
from pcdet.audit.page.comparison_plots import comparison_cost_plot
from pcdet.audit.page.comparison_rows import Compared, comparison_tables
from pcdet.audit.page.embedded import json_text
from pcdet.audit.page.figures import label, marker, model_styles
from pcdet.audit.page.groups import negative_transfer
from pcdet.audit.page.measured_tables import measured_tables
from pcdet.audit.page.objects import objects_block
from pcdet.audit.page.result_plots import cost_plot, curves_plot, forest_plot, sensitivity_plot
from pcdet.audit.page.scenes import allowance, encode_scenes, quantised, thinned
from pcdet.audit.page.summary import audit_claims, comparison_claims, result_claims, summary_section
from pcdet.audit.report import ALL, Model
from pcdet.experiments.quickstart.comparison import DIFFICULTIES, Row, rows_to_json
from pcdet.experiments.quickstart.comparison_tables import STAGES
from pcdet.experiments.results.files import parse_results
from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.sentences import claims

NO_TRANSFER = "Negative transfer: no student is compared with a control, so none can be shown."
T_OF_THREE_SEEDS = 4.302653  # 97.5 % of Student's t with two degrees of freedom, from a table


@pytest.fixture(scope="module")
def audit():
    return synthetic_audit()


@pytest.fixture(scope="module")
def reported():
    return Reported(parse_results(small_results()))


def written(tmp_path, **inputs):
    """(text of the page, its data, its scenes)."""
    page = write_page(tmp_path / "page.html", title="A page", facts={}, **inputs).read_text()
    return page, element(page, "data"), [element(page, f"scene-{i}") for i in range(page.count('id="scene-'))]


def element(page, name):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)[1])


def decoded(points):
    """Metres of an encoded cloud, by the formula of its docstring."""
    numbers = np.frombuffer(base64.b64decode(points["data"]), dtype="<i2").reshape(-1, len(points["step"]))
    return np.array(points["centre"]) + np.array(points["step"]) * numbers


def view(plot, *options):
    """(figure, table) of a plot's view."""
    return next((figure, table) for own, figure, table in plot.views if own == options)


# ------------------------------------------------------------------------------------------------------------- summary


def test_sections_without_data_say_so_in_one_line():
    for section in sections(None, None, None):
        assert not section.blocks
        assert section.missing.endswith(".") and "\n" not in section.missing


def test_the_summary_holds_every_claim_of_the_results_and_counts_the_gains_over_all_controls(reported):
    found = result_claims(reported)
    assert sorted(found[1:]) == sorted(claims(reported))
    # slices gain over plain, their one control; FitNets gain over plain and not over plain at equal compute
    assert found[0] == ("1 of 2 trainings gain 3D mAP over every control that they were compared with: 4x: slices x1.")
    assert found[-2].startswith("4x: Over plain, slices gains 6.1 points")


def test_the_summary_begins_with_the_student_beside_its_teacher(reported, audit):
    section = summary_section(reported, Compared(synthetic_comparison(), audit), audit)
    beside = section.blocks[0]["items"]
    assert beside[0] == (
        "4x has 57.1 of its teacher's 60.0 points of 3D mAP (slices: the highest of 4 trainings, which chance "
        "favours), 0.25 times its parameters and 0.26 times its MACs a frame."
    )
    assert beside[1] == (
        f"{STUDENT} has 53.3 of teacher's 61.0 points of 3D mAP (moderate), 0.25 times its parameters, "
        "0.26 times its MACs, 0.53 times its milliseconds a frame."
    )
    assert f"Of Car (383 objects), {STUDENT} finds 79.0%, teacher 87.0%." in beside


def test_a_comparisons_claim_has_gain_interval_control_and_cost():
    """Differences of 8.0, 8.2 and 8.4: 8.2 +- t * 0.2 / sqrt(3)."""
    half = T_OF_THREE_SEEDS * 0.2 / 3**0.5
    said = comparison_claims(Compared(synthetic_comparison()))
    assert said[0] == (
        f"Over student, {STUDENT} gains 8.2 points of 3D mAP [{8.2 - half:+.1f}, {8.2 + half:+.1f}], at 1.43 times "
        "that control's training cost."
    )


def test_a_gain_of_one_seed_is_not_shown():
    content = synthetic_comparison()
    for row in content["rows"].values():
        for metric in ("3d", "bev"):
            row[metric] = {difficulty: scores[:1] for difficulty, scores in row[metric].items()}
    assert "a gain of" in (said := comparison_claims(Compared(content))[0])
    assert "is not shown: +8.0 points" in said and "one seed, so no interval" in said


def test_claims_of_the_audit_are_a_handful_and_name_losses_first(audit):
    said = audit_claims(audit)
    assert said[0].startswith("Of 30 gains by group, 23 are shown, 2 are shown to be losses, and 5 are not shown")
    assert said[1] == (
        f"{STUDENT} finds 12.3 points fewer of Cyclist, distance 40 m and more than student ([-21.3, -3.3], "
        "96 objects)."
    )
    assert "points more of" in said[3]
    assert len(said) == 1 + 5 + 2  # the count, five groups, boxes where nothing is against two controls
    assert said[-2] == f"{STUDENT} makes 0.66 boxes a frame where no object is, student 0.53."


def test_negative_transfer_is_said_in_words_also_where_there_is_none(audit):
    first, second = negative_transfer(audit)
    assert "finds 12.3 points fewer" in first and first.endswith("its weakness may have been handed on.")
    assert second.endswith("the loss does not come from its weakness.")
    assert negative_transfer(synthetic_audit(losses=False)) == [
        f"{STUDENT} beside student: no loss is shown in any of 15 groups.",
        f"{STUDENT} beside student+slices: no loss is shown in any of 15 groups.",
    ]
    without_teacher = replace(audit, gains=[replace(gain, teacher_worse=None) for gain in audit.gains])
    assert negative_transfer(without_teacher)[0].endswith("There is no teacher to compare with.")


def test_a_student_that_finds_less_than_its_larger_teacher_is_no_negative_transfer(audit):
    of_teacher = [replace(gain, control="teacher", teacher_worse=False) for gain in audit.gains]
    models = [model for model in audit.models if model.role != "control"]
    alone = replace(audit, gains=of_teacher, models=models, curves=[])
    assert any(gain.verdict == "loss" for gain in alone.gains) and negative_transfer(alone) == []
    (section,) = [s for s in sections(None, None, alone) if s.id == "audit"]
    assert {"kind": "text", "text": NO_TRANSFER} in section.blocks


def test_sections_say_what_is_missing_in_one_model_alone(audit):
    teacher = [model for model in audit.models if model.role == "teacher"]
    alone = replace(audit, gains=[], models=teacher, objects=[], curves=[])
    rows = synthetic_comparison()["rows"]
    found = sections(None, Compared({"rows": {"teacher": rows["teacher"]}}, alone), alone)
    missing = {section.id: section.missing for section in found if not section.blocks}
    assert missing["objects"].startswith("No student is compared")
    assert missing["gains"].startswith("No row is compared with a control")
    assert missing["detections"] == "No frame holds an object that counts."


# ---------------------------------------------------------------------------------------------------------- comparison


def test_a_model_has_the_same_style_in_the_plots_of_rows_and_of_the_audit():
    content = synthetic_comparison()
    names = ["big", "kd", "base", "other"]
    rows = {"rows": dict(zip(names, content["rows"].values(), strict=True))}
    roles = {"big": "teacher", "base": "control", "kd": "student", "other": "student"}
    models = [Model(name=name, role=role, seeds=1, thresholds={}, first_thresholds={}) for name, role in roles.items()]
    compared = Compared(rows, SimpleNamespace(models=models))
    assert compared.controls == ["base"] and compared.students == ["kd", "other"]
    figure, _ = view(comparison_cost_plot(compared), "parameters", "3D")
    drawn = {trace["name"]: trace["marker"] for trace in figure["data"]}
    assert drawn == {name: marker(style, 10) for name, style in model_styles(models).items()}


def test_a_student_beside_its_teacher_alone_is_no_control(audit):
    rows = synthetic_comparison()["rows"]
    models = [model for model in audit.models if model.role != "control"]
    compared = Compared({"rows": {name: rows[name] for name in ("teacher", STUDENT)}}, replace(audit, models=models))
    assert compared.controls == [] and compared.students == [STUDENT] and compared.gains() == []


def test_controls_of_a_comparison_are_those_of_the_audit_then_known_names_then_the_second_row(audit):
    content = synthetic_comparison()
    assert Compared(content, audit).controls == ["student", "student+slices"]
    assert Compared(content).controls == ["student", "student+slices"]
    renamed = {"rows": dict(zip("abcd", content["rows"].values(), strict=True))}
    assert Compared(renamed).teacher == "a" and Compared(renamed).controls == ["b"]
    assert Compared(renamed).students == ["c", "d"]


def test_rows_as_compare_py_writes_them_are_read_also_where_no_training_time_is_known():
    rows = {}
    for name, score in (("teacher", 60.0), ("mine", 50.0), ("other", 52.0)):
        rows[name] = Row(params=100, macs=1000, ms_per_frame=2.0, train_cpu_s=[None])
        rows[name].add(
            {f"Car_{m}/{d}_R40": score for m in ("3d", "bev") for d in ("easy", "moderate", "hard")}, ["Car"]
        )
    compared = Compared({"rows": json.loads(json.dumps(rows_to_json(rows)))})
    summary, by_class, gains = comparison_tables(compared)
    assert [row[0] for row in summary.rows] == ["teacher", "mine", "other"]
    assert summary.rows[1][1:7] == ["50.0"] * 6 and summary.rows[1][-1] == "-"
    assert gains.rows[0][:5] == ["other", "mine", "3D", "1", "+2.0"] and gains.rows[0][-1] == "-"


@pytest.mark.parametrize(
    "content, said", [({"rows": {}}, "needs rows"), ({"rows": {"a": {"3d": {}}}}, "row 'a' lacks")]
)
def test_what_is_no_comparison_is_refused(tmp_path, content, said):
    with pytest.raises(ValueError, match=said):
        write_page(tmp_path / "page.html", comparison=content, title="", facts={})
    assert not (tmp_path / "page.html").exists()


# ------------------------------------------------------------------------------------------------------------- figures


def test_the_forest_plot_has_every_comparison_with_its_interval_filled_where_it_is_shown(reported):
    figure, _ = view(forest_plot(reported), "4x", "3D")
    traces = [trace for trace in figure["data"] if "error_x" in trace]
    drawn = {
        (trace["name"], mean, mean - trace["error_x"]["arrayminus"][i], mean + trace["error_x"]["array"][i],
         trace["marker"]["color"][i] != "#ffffff")
        for trace in traces
        for i, mean in enumerate(trace["x"])
    }  # fmt: skip
    compared = [c for c in reported.results.comparisons if c.metric == "3d"]
    assert len(drawn) == len(compared) == 3
    for c in compared:
        expected = (f"over {c.control}", c.mean, *map(pytest.approx, c.interval), c.shown)
        assert any(expected == own for own in drawn), c


def test_the_cost_plot_has_every_training_at_its_cost(reported):
    figure, _ = view(cost_plot(reported), "MACs of the training", "3D")
    drawn = {(trace["name"], x, y) for trace in figure["data"] for x, y in zip(trace["x"], trace["y"], strict=True)}
    assert drawn == {
        ("teacher pp", 9e12, 60.0), ("4x: plain", 1e12, 51.0), ("4x: plain", 1.5e12, 54.0), ("4x: slices", 1e12, 57.1),
        ("4x: FitNets [26]", 1.5e12, 53.5),
    }  # fmt: skip
    assert [plot.id for plot in [cost_plot(reported)]] == ["plan-cost"] and len(cost_plot(reported).views) == 8


def test_learning_curves_stand_over_lengths_or_over_macs(reported):
    by_macs, _ = view(curves_plot(reported), "4x", "at equal compute", "3D")
    by_samples, _ = view(curves_plot(reported), "4x", "at equal samples", "BEV")
    plain = [next(t for t in figure["data"] if t["name"] == "plain") for figure in (by_macs, by_samples)]
    assert (plain[0]["x"], plain[0]["y"]) == ([1e12, 1.5e12], [51.0, 54.0])
    assert (plain[1]["x"], plain[1]["y"]) == ([1.0, 1.5], [56.0, 59.0])
    assert plain[0]["error_y"]["array"] == [1.41421, 1.41421]  # two seeds, 2 points apart


def test_a_plan_that_varies_settings_has_a_view_a_setting(reported):
    plot = sensitivity_plot(Reported(parse_results(settings_plan())))
    assert [options for options, _, _ in plot.views] == [("4x", "K"), ("4x", "N")]
    by_n = [(t["name"], t["x"], [round(y, 6) for y in t["y"]]) for t in view(plot, "4x", "N")[0]["data"]]
    assert by_n == [("K = 16", ["600"], [1.1]), ("K = 32", ["600", "1200"], [2.1, 3.1])]
    assert sensitivity_plot(reported).views == []


def test_gains_by_group_are_drawn_and_written_with_the_number_of_objects(audit):
    figure, table = view(group_gain_plot(audit), f"{STUDENT} over {CONTROL}", "Cyclist")
    loss = next(trace for trace in figure["data"] if trace["name"] == "loss")
    assert loss["x"] == [pytest.approx(-12.3)]
    assert figure["layout"]["yaxis"]["ticktext"][3] == "Cyclist, distance 40 m and more  (n=96)"
    row = next(row for row in table.rows if row[0] == "Cyclist, distance 40 m and more")
    assert row == ["Cyclist, distance 40 m and more", "96", "55.0", "39.0", "-12.3", "[-21.3, -3.3]", "loss", "yes"]


def test_errors_are_counted_by_kind_and_model_and_true_ones_stand_in_the_table_alone(audit):
    figure, table = view(error_plot(audit), "all classes")
    assert "true" not in figure["data"][0]["x"] and table.header[1] == "true"
    counts = {(e.model, e.kind): e.per_frame for e in audit.errors if e.class_name == ALL}
    for row in table.rows:
        for kind, cell in zip(table.header[1:], row[1:], strict=True):
            assert cell == f"{counts[row[0], kind]:.3f}"


def test_a_marker_stands_on_each_curve_at_the_models_threshold(audit):
    recall, positives = curve_plots(audit)
    curve = next(c for c in audit.curves if (c.model, c.class_name) == (STUDENT, "Car"))
    threshold = next(model.thresholds["Car"] for model in audit.models if model.name == STUDENT)
    at = sum(score >= threshold for score in curve.scores) - 1
    for plot, x, y in ((recall, curve.recall, curve.precision), (positives, curve.scores, curve.false_positives)):
        figure, _ = view(plot, "Car")
        point = next(t for t in figure["data"] if t["name"] == STUDENT and t["mode"] == "markers")
        assert (point["x"], point["y"]) == ([pytest.approx(x[at], abs=1e-5)], [pytest.approx(y[at], abs=1e-5)])


def test_labels_of_figures_hold_no_markup():
    assert label('<a href="x">&lt;') == '&lt;a href="x"&gt;&amp;lt;'
    assert len(label("x" * 500)) == 70


def test_a_view_without_an_option_for_each_selector_is_refused():
    with pytest.raises(ValueError, match=r"plot p needs an option for each of \['class'\], got \[\]"):
        Plot("p", "", "", ["class"]).add([], {})


# -------------------------------------------------------------------------------------------------- objects and scenes


def test_rows_of_objects_say_what_the_audit_says(audit):
    block = objects_block(audit)
    assert block["pairs"] == [[STUDENT, "student"], [STUDENT, "student+slices"]]
    for row, own in zip(block["rows"], audit.objects, strict=True):
        assert (block["frames"][row[0]], row[1], block["classes"][row[2]]) == (own.frame, own.index, own.class_name)
        assert row[3:6] == [own.distance, own.points, [own.attributes["occlusion"]]]
        assert dict(zip(block["models"], row[6], strict=True)) == own.found


def test_the_allowance_shares_what_small_frames_leave():
    assert allowance([10, 1000, 150], 300) == 145  # 10 + 2 * 145
    assert allowance([10, 1000, 100], 300) == 190  # 10 + 100 + 190
    assert allowance([10, 20], 300) == 20
    assert allowance([], 300) == 0


@pytest.mark.parametrize("spread", [80.0, 0.0])
def test_points_of_16_bits_are_half_a_step_wrong_at_most(spread):
    points = np.random.default_rng(0).uniform(-spread, spread, (500, 3)) + [10.0, 0.0, -1.7]
    found = quantised(points, "points")
    assert found["n"] == 500
    assert np.abs(decoded(found) - points).max() <= max(spread * 2 / 65534, 1e-5) / 2 * 1.001


def test_points_that_are_not_finite_are_named():
    points = np.zeros((3, 3))
    points[1, 2] = np.inf
    with pytest.raises(ValueError, match=r"points of frame 7 must be finite, number 1 is \[0.0, 0.0, inf\]"):
        quantised(points, "points of frame 7")


def test_one_seed_is_said_to_tell_nothing_of_other_trainings(tmp_path, audit):
    said = "One seed each of {}: their intervals are over frames alone"
    _, data, _ = written(tmp_path, audit=audit)
    assert "One seed" not in json.dumps(data)
    models = [replace(model, seeds=1) if model.name in ("teacher", STUDENT) else model for model in audit.models]
    _, data, _ = written(tmp_path, audit=replace(audit, models=models))
    assert said.format(STUDENT) in json.dumps(data)


def test_what_the_comparison_measured_beside_its_first_table_is_on_the_page():
    metrics = ("3d", "bev", "aos")
    maps = {m: {d: [10.0 * i + j] for j, d in enumerate(DIFFICULTIES)} for i, m in enumerate(metrics)}
    row = {
        "3d": maps["3d"], "bev": maps["bev"], "per_class": {}, "params": 1, "macs": 1, "ms_per_frame": 1.0,
        "train_cpu_s": None, "tables": {"mAP (R11)": maps, "mAP (R11), loose": maps},
        "recall": {"rcnn_0.5": [0.5, 0.7]}, "peak_memory": {"4": 3 * 2**20},
        "ms_by_stage": {"4": {s: {"median": 5.0, "low": 4.5, "high": 6.0} for s in STAGES}},
    }  # fmt: skip
    headings = {table.heading: table for table in measured_tables(Compared({"rows": {"teacher": row}}))}
    assert list(headings) == [
        "mAP (R11), %", "mAP (R11), loose, %", "Recall (%)", "Milliseconds a frame by stage",
    ]  # fmt: skip
    assert headings["mAP (R11), loose, %"].rows == [
        ["teacher", "0.0", "1.0", "2.0", "10.0", "11.0", "12.0", "20.0", "21.0", "22.0"]
    ]
    assert headings["Recall (%)"].rows[0][1].startswith("60.0")
    times = headings["Milliseconds a frame by stage"].rows[0]
    assert times == ["teacher", "4", *["5.0 (4.5-6.0)"] * len(STAGES), "3"]


def test_detections_of_a_scene_keep_their_scores_exactly_and_their_boxes_to_millimetres(tmp_path, audit):
    """A threshold is the score of a detection: a score that is rounded down would fall below it."""
    _, data, scenes = written(tmp_path, audit=audit)
    for scene, own in zip(scenes, audit.scenes, strict=True):
        assert [found["model"] for found in scene["detections"]] == list(own.detections)
        for found in scene["detections"]:
            expected = own.detections[found["model"]]
            scores = np.frombuffer(base64.b64decode(found["scores"]), dtype="<f4")
            np.testing.assert_array_equal(scores, np.asarray(expected.scores, dtype=np.float32))
            assert np.abs(decoded(found["boxes"]) - expected.boxes).max(initial=0) < 0.002
            for numbers, texts, wanted in (("name", "names", expected.names), ("kind", "kinds", expected.kinds)):
                numbered = np.frombuffer(base64.b64decode(found[numbers]), dtype="<u2")
                assert [found[texts][i] for i in numbered] == list(wanted)
    thresholds = {m["name"]: m["thresholds"] for m in data["models"]}
    assert thresholds == {m.name: dict(m.first_thresholds) for m in audit.models}


def test_thinning_keeps_points_in_boxes_and_far_ones_rather_than_near_ones():
    rng = np.random.default_rng(0)
    box = np.array([[30.0, 0.0, 0.0, 4.0, 2.0, 2.0, 0.0]])
    on_box = box[0, :3] + rng.uniform(-0.9, 0.9, (50, 3))
    near, far = rng.uniform(-2, 2, (1000, 3)), rng.uniform(-2, 2, (1000, 3)) + [60.0, 0.0, 0.0]
    points = np.concatenate([near, on_box, far])
    kept = thinned(points, 250, box)
    assert len(kept) == 250 and (thinned(points, 250, box) == kept).all()
    rows = {tuple(point) for point in kept}
    assert {tuple(point) for point in on_box} <= rows
    assert sum(tuple(point) in rows for point in far) > 5 * sum(tuple(point) in rows for point in near)
    few = {tuple(point) for point in thinned(points, 20, box)}  # fewer than lie in the box
    assert len(few) == 20 and len(few & {tuple(point) for point in on_box}) == 10
    assert len(thinned(on_box, 20, box)) == 20
    assert thinned(points, 5000, box) is points


def test_a_frame_is_kept_whole_and_the_page_stays_within_its_limit(tmp_path, audit):
    whole = audit.scenes[1].frame
    _, _, roomy = written(tmp_path, audit=audit)
    assert [scene["points"]["n"] for scene in roomy] == [6000] * 3
    limit = (tmp_path / "page.html").stat().st_size - 50_000
    _, data, scenes = written(tmp_path, audit=audit, keep_whole=[whole], limit=limit)
    assert (tmp_path / "page.html").stat().st_size <= limit
    assert data["scenes"] == [scene.frame for scene in audit.scenes] == [scene["frame"] for scene in scenes]
    fewer, all_of_it, as_few = (scene["points"]["n"] for scene in scenes)
    assert all_of_it == 6000 and 200 <= fewer == as_few < 6000 - 50_000 / 8 / 2
    error = decoded(scenes[1]["points"]) - audit.scenes[1].points
    assert np.abs(error).max() <= max(scenes[1]["points"]["step"]) / 2 * 1.001


def test_importances_beyond_their_share_are_the_highest(audit):
    scene = replace(audit.scenes[0], importance={STUDENT: np.random.default_rng(0).uniform(0, 1, (3000, 4))})
    (found,) = encode_scenes(replace(audit, scenes=[scene]), 40_000, [])
    (entry,) = found["importance"]
    kept = np.frombuffer(base64.b64decode(entry["importance"]), dtype=np.uint8) / 255
    assert entry["of"] == 3000 and 0 < entry["n"] == len(kept) < 3000
    assert kept.min() >= np.sort(scene.importance[STUDENT][:, 3])[-entry["n"]] - 1 / 255


def test_200_frames_take_at_most_15_megabytes(tmp_path):
    audit = synthetic_audit(scenes=200, points=9000)
    write_page(tmp_path / "page.html", audit=audit, title="", facts={})
    assert 14_500_000 < (tmp_path / "page.html").stat().st_size <= 15_000_000


def test_an_unknown_frame_to_keep_and_too_small_a_limit_are_refused(tmp_path, audit):
    written(tmp_path, audit=replace(audit, scenes=[]))
    room = (tmp_path / "page.html").stat().st_size + 5000
    (tmp_path / "page.html").unlink()
    with pytest.raises(ValueError, match="keep_whole: no scene is of frame '00000l'; did you mean 00000"):
        written(tmp_path, audit=audit, keep_whole=["00000l"])
    with pytest.raises(ValueError, match="3 scenes do not fit the page.*show fewer scenes"):
        written(tmp_path, audit=audit, limit=room)
    with pytest.raises(ValueError, match="page.html would take .* bytes, and 1,000 are allowed"):
        written(tmp_path, limit=1000)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("text", ["</script><script>", "<!--<script>", "a&b", "\u2028\u2029", "\ud800 half", "ä"])
def test_json_cannot_end_its_element_and_is_read_as_it_was(text):
    found = json_text({text: [text]})
    assert found.isascii() and not set("<>&") & set(found)
    assert json.loads(found) == {text: [text]}


def test_the_policy_allows_the_pages_own_scripts_and_nothing_else(tmp_path, audit):
    page, _, _ = written(tmp_path, audit=audit)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data: blob:"
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    sums = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 3
    assert rules["script-src"].split() == [f"'sha256-{found}'" for found in sums]


def test_a_title_is_text(tmp_path):
    page = write_page(tmp_path / "sub/page.html", title="</title><img src=x>", facts={}).read_text()
    assert "<title>&lt;/title&gt;&lt;img src=x&gt;</title>" in page and "<img" not in page.split("<script>")[0]
