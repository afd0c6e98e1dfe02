"""The table of goals that ``tools/benchmarks/summarise.py`` makes of the benchmarks' files."""

import json

import pytest


@pytest.fixture
def summarise(tool):
    return tool("benchmarks/summarise")


def row(case, contender, ms, ours_ms, **more):
    times = {"times_ours": ms / ours_ms, "cpu_times_ours": ms / ours_ms, "ms": ms, "cpu_ms": ms}
    return {"case": case, "contender": contender, "agreement": "", **times, **more}


def write(folder, script, *rows, **more):
    folder.joinpath(f"{script}.json").write_text(json.dumps({"rows": rows, "skipped": {}, **more}))


def line_of(table, start):
    return next(line for line in table.splitlines() if line.startswith(f"| {start}"))


def test_a_goal_is_judged_by_its_worst_case_against_the_fastest_of_its_contenders(summarise, tmp_path):
    balls = [("ball query, r = 0.1", 4.0, 3.0, 9.0), ("ball query, r = 0.5", 4.0, 8.0, 2.0)]
    rows = []
    for case, ours, bounded, ball_point in balls:
        rows += [row(case, "pcdet", ours, ours), row(case, "cKDTree.query, bounded (CPU)", bounded, ours)]
        rows += [row(case, "cKDTree.query_ball_point (CPU)", ball_point, ours)]
    write(tmp_path, "bm_pointnet2", *rows)
    table = summarise.goals_table(summarise.load(tmp_path))
    assert "0.5x (CPU 0.5x) | **no** |" in line_of(table, "ball query")


def test_results_that_differ_miss_the_goal_however_fast(summarise, tmp_path):
    rows = [row("PointPillars", "spconv PointToVoxel (CPU)", 5.0, 1.0, agreement="DIFFERENT")]
    write(tmp_path, "bm_voxelize", *rows)
    table = summarise.goals_table(summarise.load(tmp_path))
    assert "results DIFFER | **no** |" in line_of(table, "hard voxelisation")


def test_what_was_not_measured_says_why(summarise, tmp_path):
    case = "rotated NMS of 4096 around 50 objects"
    write(tmp_path, "bm_iou3d_nms", row(case, "pcdet", 1.0, 1.0), skipped={"mmcv C++": "no sources"})
    table = summarise.goals_table(summarise.load(tmp_path))
    assert "not measured: mmcv C++ no sources | - |" in line_of(table, "rotated NMS, 4096")
    assert "bm_voxelize.py wrote no result" in line_of(table, "hard voxelisation")


def test_memory_of_the_loss_is_compared_with_the_released_form(summarise, tmp_path):
    case = "loss, and gradients of the student's side: 6000 x 128"
    released = "gather + cat + conv2d (released)"
    rows = [
        row(case, "pcdet", 1.0, 1.0, peak_mb=10, error=1e-6),
        row(case, released, 9.0, 1.0, peak_mb=500, error=1e-4),
    ]
    write(tmp_path, "bm_kd_loss", *rows)
    table = summarise.goals_table(summarise.load(tmp_path))
    assert "9.0x (CPU 9.0x) | yes |" in table
    assert "10 of 500 MB: 1/50 | yes |" in table
    assert "1.0e-06, PyTorch's 1.0e-04 | yes |" in table


def test_every_contender_of_a_goal_is_one_of_its_script(summarise, repo_root):
    sources = "".join(path.read_text() for path in (repo_root / "tools/benchmarks").glob("bm_*.py"))
    for names in (summarise.LIBRARIES, summarise.BALL_QUERY, summarise.MMCV, summarise.FPSAMPLE, summarise.SPCONV):
        assert all(f'"{name}"' in sources for name in names)
    assert f'"{summarise.RELEASED}"' in sources
