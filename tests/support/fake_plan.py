"""experiment.py with the fake tools of a folder, in a process group of its own, so that its jobs can be killed with it.

python fake_plan.py TOOLS, and the flags of experiment.py.
"""

import os
import sys
from pathlib import Path
from unittest import mock

from pcdet.cli import experiment as command
from pcdet.cli.ending import run
from support.fake_tools import POLL_S, RESAMPLES


def quick_places(args, output, make=command.places_from_flags):
    """Places that are looked at often: fake jobs take less than the usual half a second."""
    places = make(args, output)
    places.poll_s = POLL_S
    return places


if __name__ == "__main__":
    os.setpgrp()
    resamples = mock.patch("pcdet.experiments.plans.collect.RESAMPLES", RESAMPLES)
    with mock.patch.object(command, "places_from_flags", quick_places), resamples:
        run(lambda: command.experiment(command.parse_args(sys.argv[2:]), Path(sys.argv[1])))
