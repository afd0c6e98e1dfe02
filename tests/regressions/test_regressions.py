"""Files that once crashed a reader, hung it, took all memory or came through damaged: one a case, named after it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcdet.datasets.errors import BadFrameError
from pcdet.datasets.point_files import read_npy, read_points
from pcdet.utils import safe_pickle
from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint
from pcdet.utils.safe_pickle import UnsafePickleError

FOLDER = Path(__file__).parent
READERS = {  # folder: its reader, and the error that the reader documents
    "bin": (read_points, BadFrameError),
    "checkpoint": (read_checkpoint, CheckpointError),
    "npy": (read_npy, BadFrameError),
    "pickle": (safe_pickle.load, UnsafePickleError),
}
FILES = sorted(file for folder in READERS for file in (FOLDER / folder).iterdir() if file.suffix != ".json")
SECONDS, MEGABYTES = 2.0, 200  # a file, on a machine that does other things too

LIMITED = """
import json, resource, sys, time
from pathlib import Path

from tests.regressions.test_regressions import MEGABYTES, READERS

sizes = Path("/proc/self/statm").read_text().split()
limit = int(sizes[0]) * resource.getpagesize() + MEGABYTES * 1000000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for line in sys.stdin:
    path = Path(line.strip())
    reader, error = READERS[path.parent.name]
    begin, said = time.process_time(), None
    try:
        reader(path)
    except error as caught:
        said = str(caught)
    print(json.dumps([f"{path.parent.name}/{path.name}", time.process_time() - begin, said]), flush=True)
"""


@pytest.fixture(scope="module")
def readings(repo_root):
    """Folder and name -> seconds and what the error says, None for a value; from a process with little memory."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    process = subprocess.run(
        [sys.executable, "-c", LIMITED],
        input="\n".join(map(str, FILES)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout[-300:] + process.stderr[-3000:]
    return {name: (seconds, said) for name, seconds, said in map(json.loads, process.stdout.splitlines())}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_file_that_broke_something_gives_a_value_or_the_error_that_names_it(file, readings):
    seconds, said = readings[f"{file.parent.name}/{file.name}"]
    assert said is None or file.name in said
    assert seconds < SECONDS
