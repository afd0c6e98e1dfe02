import pytest
from support.synthetic_results import comparison, results, run, small_results, teacher

from pcdet.experiments.results.files import parse_results
from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.page import results_markdown, results_text
from pcdet.experiments.results.sentences import claims
from pcdet.experiments.results.tables import tables


def reported(content):
    return Reported(parse_results(content))


def with_plan(**plan):
    content = small_results()
    content["plan"] = {**content["plan"], **plan}
    return content


def table(content, start):
    """The one table whose heading begins so."""
    (found,) = [t for t in tables(reported(content)) if t.heading.startswith(start)]
    return found


def test_overview_has_each_gain_beside_its_control_with_interval_and_cost():
    assert table(small_results(), "3D").as_text().splitlines() == [
        "3D AP of 4x (R40, %), 200 frames of the report split",
        "method        seeds  cost    mAP mod.         over plain  over plain at equal compute",
        "-------------------------------------------------------------------------------------",
        "teacher (pp)      1     -        60.0                  -                            -",
        "plain             2  1.00  51.0 +-1.4                  -                            -",
        "slices            2  1.00  57.1 +-1.6  +6.1 [+4.8, +7.4]                            -",
        "FitNets [26]      2  1.50  53.5 +-1.6  +2.5 [+1.2, +3.8]  -0.5 [-1.8, +0.8] not shown",
    ]
    assert table(small_results(), "BEV").as_text().splitlines()[-1].split() == [
        "FitNets", "[26]", "2", "1.50", "58.5", "+-1.6", "+2.5", "[+1.2,", "+3.8]", "-",
    ]  # fmt: skip


def test_markdown_has_the_same_cells_as_the_text():
    assert table(small_results(), "3D").as_markdown().splitlines() == [
        "## 3D AP of 4x (R40, %), 200 frames of the report split",
        "",
        "| method | seeds | cost | mAP mod. | over plain | over plain at equal compute |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| teacher (pp) | 1 | - | 60.0 | - | - |",
        "| plain | 2 | 1.00 | 51.0 +-1.4 | - | - |",
        "| slices | 2 | 1.00 | 57.1 +-1.6 | +6.1 [+4.8, +7.4] | - |",
        "| FitNets [26] | 2 | 1.50 | 53.5 +-1.6 | +2.5 [+1.2, +3.8] | -0.5 [-1.8, +0.8] not shown |",
    ]


def test_methods_have_each_class_by_difficulty_and_bev_first():
    found = [t.heading[:3] for t in tables(reported(with_plan(TABLE="methods")))]
    assert found[:2] == ["BEV", "3D "]
    # 53.5 on the mean of both classes: cars 4 above it, cyclists 4 below; easy 3 above moderate, hard 2 below
    row = table(with_plan(TABLE="methods"), "3D").rows[-1]
    assert row == ["FitNets [26]", "2", "1.50", "60.5/57.5/55.5", "52.5/49.5/47.5", "53.5 +-1.6", "+2.5 [+1.2, +3.8]",
                   "-0.5 [-1.8, +0.8] not shown"]  # fmt: skip


def test_detectors_stand_with_their_students_sizes_and_what_distilled_them():
    plan = {"TABLE": "detectors", "TITLES": {"pp": "PointPillars", "4x": "PointPillars 4x", "fitnet": "FitNets"}}
    found = table(with_plan(**plan), "3D AP (R40")
    assert found.header[:5] == ["detector", "params", "MACs", "distilled with", "seeds"]
    assert [row[:4] for row in found.rows] == [
        ["PointPillars", "4.83 M", "34.17 G", "(teacher)"],
        ["PointPillars 4x", "1.22 M", "8.91 G", "-"],
        ["PointPillars 4x", "1.22 M", "8.91 G", "slices"],
        ["PointPillars 4x", "1.22 M", "8.91 G", "FitNets"],
    ]
    assert found.rows[0][5:] == ["-", "67.0/64.0/62.0", "59.0/56.0/54.0", "60.0", "-", "-"]


def test_students_stand_below_their_own_teacher():
    of_second = {"teacher": "second", "student": "half", "id": "b"}
    runs = [
        teacher(),
        run("plain", 50.0),
        teacher(70.0, id="second", teacher="second"),
        run("plain", 55.0, **of_second),
    ]
    found = table(results(runs, plan={"TABLE": "detectors"}), "3D")
    assert [(row[0], row[-1]) for row in found.rows] == [
        ("pp", "60.0"), ("4x", "50.0"), ("second", "70.0"), ("half", "55.0"),
    ]  # fmt: skip


def test_an_ablation_says_which_parts_are_on():
    plan = {"TABLE": "ablation", "PARTS": {"fitnet": ["reweighting"], "slices": ["local", "reweighting"]}}
    found = table(with_plan(**plan), "3D AP of")
    assert found.header[:3] == ["method", "reweighting", "local"]
    assert [row[:3] for row in found.rows] == [
        ["plain", "no", "no"], ["FitNets [26]", "yes", "no"], ["slices", "yes", "yes"],
    ]  # fmt: skip


def test_sensitivity_has_the_settings_as_columns():
    found = table(with_plan(TABLE="sensitivity", SETTINGS={"fitnet": {"K": 64, "N": 6000}}), "3D AP of")
    assert found.header[:3] == ["method", "K", "N"]
    assert [row[:3] for row in found.rows] == [["plain", "-", "-"], ["FitNets [26]", "64", "6000"]]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"TABLE": "ablation"}, r"PARTS: a plan with TABLE: ablation needs it, got None; add PARTS: \{my_method"),
        ({"TABLE": "sensitivity", "SETTINGS": {"fitnets": {"K": 1}}}, r"SETTINGS.fitnets: no run has this method; did "
         "you mean fitnet"),
        ({"TABLE": "picture"}, r"TABLE: must be one of overview, detectors, methods, ablation, sensitivity, got "
         "'picture'"),
    ],
)  # fmt: skip
def test_a_plan_that_lacks_what_its_form_needs_is_told_so(plan, message):
    with pytest.raises(ValueError, match=message):
        tables(reported(with_plan(**plan)))


def test_a_method_of_the_ablation_without_a_report_keeps_its_row():
    runs = [run("plain", 50.0), run("kd", None)]
    found = table(results(runs, plan={"TABLE": "ablation", "PARTS": {"kd": ["x"]}}), "3D")
    assert found.rows[1] == ["kd", "yes", *["-"] * 5]


def test_lengths_stand_side_by_side():
    content = small_results()
    longer = {"length": 2.0, "training_macs": 3_000_000_000_000}
    content["runs"] += [run("fitnet", 58.0, **longer), run("plain", 57.0, length=2.0)]
    content["comparisons"].append(comparison("fitnet", "plain", [1.0], None, length=2.0, control_length=2.0, cost=1.5))
    found = table(content, "Lengths of training")
    assert [row[:6] for row in found.rows] == [
        ["plain", "x1", "2", "1.00", "51.0 +-1.4", "-"],
        ["plain", "x1.5", "2", "1.50", "54.0 +-1.4", "-"],
        ["plain", "x2", "1", "2.00", "57.0", "-"],
        ["FitNets [26]", "x1", "2", "1.50", "53.5 +-1.6", "+2.5 [+1.2, +3.8]"],
        ["FitNets [26]", "x2", "1", "3.00", "58.0", "+1.0 (one seed) not shown"],
    ]


def test_what_was_chosen_is_shown_with_what_was_tried():
    content = small_results()
    assert table(content, "Lengths, chosen").rows == [
        ["pp (teacher)", "12 epochs: 58.0, 24 epochs: 61.0", "24 epochs"], ["4x (plain)", "x1: 52.2", "x1"],
    ]  # fmt: skip
    assert table(content, "Weights").rows == [["4x", "FitNets [26]", "10.0", "x3: 50.0", "x3"]]
    assert table(content, "Screening").rows == [["4x", "FitNets [26]", "2", "54.5 +-1.6", "yes"]]


def test_every_comparison_has_both_intervals_and_its_p_values():
    rows = table(small_results(), "Every comparison").rows
    assert rows[:2] == [
        ["4x", "FitNets [26]", "x1", "plain x1", "3D", "2", "+2.5", "[+1.2, +3.8]", "[+0.5, +4.0]", "0.250", "0.500",
         "0.500", "1.50", "yes"],
        ["4x", "FitNets [26]", "x1", "plain at equal compute x1.5", "3D", "2", "-0.5", "[-1.8, +0.8]", "-", "0.250",
         "-", "0.500", "1.00", "no"],
    ]  # fmt: skip


def test_claims_say_gain_interval_control_and_cost_or_that_it_is_not_shown():
    assert claims(reported(small_results())) == [
        "The teacher pp was trained for 24 epochs; it had not stopped improving. It stands 6.5 points above the plain "
        "student at its best length, not as far as the plan asks for.",
        "4x: Over plain, FitNets [26] gains 2.5 points of 3D mAP (95 % interval +1.2 to +3.8 over 2 seeds, +0.5 to "
        "+4.0 over seeds and frames), at 1.50 times that control's training cost. Over plain at equal compute, a gain "
        "of FitNets [26] is not shown: -0.5 points of 3D mAP (95 % interval -1.8 to +0.8 over 2 seeds), at 1.00 "
        "times that control's training cost.",
        "4x: Over plain, slices gains 6.1 points of 3D mAP (95 % interval +4.8 to +7.4 over 2 seeds), at 1.00 times "
        "that control's training cost.",
    ]  # fmt: skip


def test_a_loss_is_called_one_and_one_seed_shows_nothing():
    runs = [run("plain", 50.0, seed=s) for s in range(2)] + [run("kd", 49.0, seed=0), run("kd", 48.8, seed=1)]
    lost = results(runs, [comparison("kd", "plain", [-1.0, -1.2], (-2.4, -0.1))])
    assert claims(reported(lost))[0].startswith("4x: Over plain, kd loses 1.1 points of 3D mAP (95 % interval -2.4 to")
    single = results(runs[:1] + runs[2:3], [comparison("kd", "plain", [-1.0], None)])
    assert claims(reported(single))[0].startswith(
        "4x: Over plain, a gain of kd is not shown: -1.0 points of 3D mAP (one seed, so no interval)"
    )


def test_the_page_has_facts_claims_pictures_and_every_table_of_the_text():
    checked = parse_results(small_results())
    page, text = results_markdown(checked, ["gains.png"]), results_text(checked)
    assert page.startswith(
        "# A small plan\n\n3d moderate R40 mAP; frames: 400 to train on, 100 that choices are made on"
    )
    assert "\n- 4x: Over plain, FitNets [26] gains" in page and "\n![gains](gains.png)\n" in page
    headings = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert len(headings) == 7 and all(f"\n{heading}\n" in text for heading in headings)
