import argparse
import json
import os
from pathlib import Path

import pytest
from support import slurm_stub
from support.jobs import python_job

from pcdet.cli.place_flags import add_place_flags, places_from_flags
from pcdet.experiments.running.places import core_places, gpu_places
from pcdet.experiments.running.pool import run_jobs
from pcdet.registry import ConfigError

TELL = "import json, os, time; time.sleep(0.3); open({!r}, 'w').write(json.dumps(dict(os.environ)))"


def environments(tmp_path, places, number):
    """What each of so many jobs found in its environment."""
    files = [tmp_path / f"environment{i}" for i in range(number)]
    run_jobs([python_job(tmp_path, str(i), TELL.format(str(file))) for i, file in enumerate(files)], places)
    return [json.loads(file.read_text()) for file in files]


def test_a_job_on_cores_gets_its_threads_and_the_rest_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OF_THE_CALLER", "kept")
    (found,) = environments(tmp_path, core_places(1, threads=3), 1)
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"], found["OF_THE_CALLER"]) == ("3", "3", "kept")


def test_jobs_side_by_side_see_one_gpu_each(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = environments(tmp_path, gpu_places(["4", "5"]), 2)
    assert sorted(environment["CUDA_VISIBLE_DEVICES"] for environment in found) == ["4", "5"]


def test_a_gpu_that_gets_free_takes_the_next_job(tmp_path):
    found = environments(tmp_path, gpu_places(["2"]), 3)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found] == ["2"] * 3


def test_jobs_on_gpus_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert {place["OMP_NUM_THREADS"] for place in gpu_places(["0", "1", "2"]).environments} == {"5"}


@pytest.mark.parametrize("ids", [[], [""], ["0", "0"]])
def test_gpus_are_named_each_once(ids):
    with pytest.raises(ValueError, match="each once"):
        gpu_places(ids)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_processes_and_threads_are_at_least_one(numbers):
    with pytest.raises(ValueError, match="at least 1"):
        core_places(*numbers)


def places(*words, folder=Path("plan")):
    parser = argparse.ArgumentParser()
    add_place_flags(parser, jobs=3)
    return places_from_flags(parser.parse_args(words), folder)


@pytest.fixture
def a_cluster(monkeypatch):
    monkeypatch.setenv("PATH", f"{slurm_stub.BIN}:{os.environ['PATH']}")


def test_without_a_flag_jobs_run_on_cores_as_many_as_the_command_says():
    assert places() == core_places(3)
    assert places("--jobs", "5") == core_places(5)


def test_gpus_are_named_by_commas():
    assert places("--gpus", "0,3") == gpu_places(["0", "3"])


def test_a_cluster_is_told_its_partition_its_numbers_and_options_of_sbatch(a_cluster):
    words = ["timeout_min=90", "max-parallel=8", "mem-per-cpu=4G", "exclusive"]
    found = places("--slurm", "gpu", "--slurm_set", *words)
    assert (found.folder, found.partition, found.timeout_min, found.max_parallel) == (Path("plan"), "gpu", 90, 8)
    assert found.options == {"mem_per_cpu": "4G", "exclusive": True}
    assert places("--slurm").partition is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs", "0"], "--jobs: .*at least 1, got 0"),
        (["--gpus", "0,0"], "--gpus: .*each once"),
        (["--slurm_set", "mem=4G"], "--slurm_set is for --slurm"),
        (["--slurm", "gpu", "--slurm_set", "timeout_min=4h"], "timeout_min must be a whole number, got '4h'"),
        (["--slurm", "gpu", "--slurm_set", "mem="], "takes KEY=VALUE or KEY, got 'mem='"),
        (["--slurm", "gpu", "--slurm_set", "array=0-3"], "sbatch's option array is set here"),
    ],
)
def test_flags_that_name_no_place_are_refused(a_cluster, words, said):
    with pytest.raises(ConfigError, match=said):
        places(*words)


def test_jobs_run_in_one_kind_of_place(capsys):
    with pytest.raises(SystemExit):
        places("--jobs", "2", "--gpus", "0")
    assert "not allowed with argument" in capsys.readouterr().err
