"""The table of a GPU's limits that ``tools/dev/roofline.py`` makes of the benchmarks' files."""

import json

import pytest


@pytest.fixture
def roofline(tool):
    return tool("dev/roofline")


def results(card, **scripts):
    """script -> its JSON with rows of ours, by case."""
    rows = {
        script: [{"case": case, "contender": "pcdet", "ms": ms} for case, ms in cases.items()]
        for script, cases in scripts.items()
    }
    return {script: {"device": card, "skipped": {}, "rows": own} for script, own in rows.items()}


def lines(roofline, found):
    _, limit = roofline.card_of(found)
    return {row.what: roofline.line(row, found, limit(row)) for row in roofline.ROWS}


def test_a_search_is_held_against_its_arithmetic(roofline):
    """2 x 6000 x 16000 x 64 operations at 67 T a second are 0.183 ms."""
    case = "features: 6000 queries, 16000 rows, 64 channels, k 128"
    found = lines(roofline, results("NVIDIA H200", bm_knn={case: 0.366}))
    cells = ("0.366", "0.1834", "50%", "0.36", "**no**")
    assert found["knn in features, 6000 x 16000 x 64, k 128"][1:] == cells


def test_a_gather_is_held_against_its_traffic(roofline):
    """Six thousand times 128 edges of 32 floats and an index of 8 bytes, beside 5.6 MB of rows: 110 MB at 4.3 TB/s."""
    found = lines(roofline, results("NVIDIA H200", bm_edge_conv={"forward, C 64, none: any": 0.05}))
    assert found["edge convolution, every edge"][1:] == ("0.050", "0.0256", "51%", "0.08", "yes")


def test_the_slowest_case_counts_and_what_was_not_measured_says_so(roofline):
    cases = {"rotated NMS of 4096 around 50": 0.1, "rotated NMS of 4096 around 500": 0.2}
    found = lines(roofline, results("NVIDIA H200", bm_iou3d_nms=cases))
    assert found["rotated NMS, 4096 boxes, slowest case"][1:] == ("0.200", "-", "-", "0.15", "**no**")
    assert (
        "not measured: bm_iou3d_nms.py has no case rotated NMS of 9000"
        in found["rotated NMS, 9000 boxes, slowest case"][1]
    )
    assert "not measured: bm_voxelize.py wrote no result" in found["hard voxelisation of 120k points, slowest case"][1]


def test_a_card_without_known_peaks_has_goals_and_no_limits(roofline):
    case = "features: 6000 queries, 16000 rows, 64 channels, k 128"
    found = lines(roofline, results("NVIDIA T4", bm_knn={case: 3.0}))
    assert found["knn in features, 6000 x 16000 x 64, k 128"][1:] == ("3.000", "-", "-", "0.36", "**no**")


def knn_of_every_case(roofline, shares):
    """Results in which the searches reach these shares of their limits, in the order of the rows."""
    rows = [row for row in roofline.ROWS if row.script == "bm_knn"]
    ms = [row.operations / 67e12 * 1e3 / share for row, share in zip(rows, shares, strict=True)]
    return results("NVIDIA H200", bm_knn={row.case: each for row, each in zip(rows, ms, strict=True)})


def verdict(roofline, found):
    return roofline.knn_verdict(found, roofline.card_of(found)[1])


def test_a_search_at_half_of_its_limit_in_every_case_keeps_its_exact_form(roofline):
    text = verdict(roofline, knn_of_every_case(roofline, [0.51, 0.9, 0.6, 0.7, 0.8]))
    assert text.startswith("knn: the exact form stays: 5 of 5 cases reach the bar of 50%, the least is 51% (knn in")


def test_one_search_below_half_of_its_limit_speaks_for_the_expanded_form(roofline):
    text = verdict(roofline, knn_of_every_case(roofline, [0.9, 0.9, 0.49, 0.9, 0.9]))
    assert "the expanded form with exact re-ranking is worth a trial" in text
    assert "4 of 5 cases reach the bar of 50%, the least is 49% (knn in features, 256 x 35200 x 128, k 256)" in text


def test_the_form_of_the_search_is_undecided_without_all_cases_or_the_card_s_peaks(roofline):
    case = "features: 6000 queries, 16000 rows, 64 channels, k 128"
    text = verdict(roofline, results("NVIDIA H200", bm_knn={case: 0.1}))
    assert text.startswith("knn: undecided, bm_knn.py has no case")
    every = knn_of_every_case(roofline, [0.9] * 5)
    every["bm_knn"]["device"] = "NVIDIA T4"
    assert verdict(roofline, every) == "knn: undecided, the peaks of this card are not listed."


def test_the_page_says_what_of_a_step_is_the_distillation(roofline):
    summary = {"share": 0.2, "cpu_share": 0.1, "extra_mb": 30.0, "plain_share": 0.7}
    row = {"case": "step of 2 frames, preset default", "contender": "pcdet", "ms": 50.0, "summary": summary}
    text = roofline.text({"bm_kd_step": {"device": "NVIDIA H200", "skipped": {}, "rows": [row]}})
    wanted = (
        "preset default: 20.0% (CPU 10.0%), 30 MB; plain PyTorch 70%; the goal of 15 % and 100 MB is **not reached**"
    )
    assert wanted in text
    assert "preset official: not measured" in text


def test_results_of_a_cpu_are_refused(roofline, tmp_path, monkeypatch):
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "bm_knn.json").write_text(json.dumps({"device": "cpu", "rows": []}))
    monkeypatch.setattr("sys.argv", ["roofline.py", str(folder)])
    with pytest.raises(SystemExit, match="results of one GPU are wanted, these are of cpu"):
        roofline.main()
