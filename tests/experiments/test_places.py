import json
import os

import pytest
from support.jobs import python_job

from pcdet.experiments.places import core_places, gpu_places
from pcdet.experiments.pool import run_jobs

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
