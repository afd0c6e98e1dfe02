"""Which nvcc builds the CUDA ops: found by looking at files, so that it works without torch.

A toolkit fits a torch of the same major version of CUDA; nvcc of 13.0 builds for a torch of 13.2.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

USUAL_HOME = Path("/usr/local/cuda")
WHEELS_MAJOR = "13"  # the wheels of CUDA 12 hold ptxas and no nvcc
WHEELS_HOME = Path(f"nvidia/cu{WHEELS_MAJOR}")  # below the folder that the wheels are installed into


class Toolkit(NamedTuple):
    """A folder with ``bin/nvcc`` and CUDA's headers, and the release of its nvcc, such as 13.0."""

    home: Path
    release: str

    def fits(self, cuda: str) -> bool:
        """Whether it builds ops for a torch of this version of CUDA."""
        return major(self.release) == major(cuda)

    def __str__(self):
        return f"{self.home / 'bin/nvcc'} {self.release}"


class ToolkitError(ValueError):
    """CUDA_HOME names a folder that cannot build the ops."""


def major(release: str) -> str:
    """The major version of a release of CUDA: "13.0" -> "13"."""
    return release.partition(".")[0]


def wheels_folder() -> Path:
    """Where ``make setup`` installs NVIDIA's wheels: a folder of its own in this interpreter's environment."""
    return Path(sys.prefix, "nvcc")


def find_toolkits() -> list[Toolkit]:
    """The toolkits of this machine, the preferred one first.

    Where ``CUDA_HOME`` (or ``CUDA_PATH``) is set, what it names is the only one; otherwise these are that of the
    ``PATH``, ``/usr/local/cuda`` and the wheels of this environment.
    """
    named = named_home()
    homes = [named] if named else [*_homes_on_path(), USUAL_HOME, wheels_folder() / WHEELS_HOME]
    releases = {home: release_of(home) for home in homes if _has_compiler(home)}
    return [Toolkit(home, release) for home, release in releases.items() if release]


def fitting_toolkit(cuda: str) -> Toolkit | None:
    """The toolkit that builds ops for a torch of this version of CUDA, or None.

    Raises:
        ToolkitError: ``CUDA_HOME`` is set and does not fit; another one is not taken in its place.
    """
    toolkits = find_toolkits()
    fitting = next((toolkit for toolkit in toolkits if toolkit.fits(cuda)), None)
    if fitting is None and (home := named_home()):
        found = f"nvcc {toolkits[0].release}" if toolkits else "no bin/nvcc with the headers beside it"
        raise ToolkitError(
            f"CUDA_HOME must name a toolkit of CUDA {major(cuda)}, as torch is built for CUDA {cuda}; {home} has "
            f"{found}. Name another one, or unset CUDA_HOME"
        )
    return fitting


def named_home() -> Path | None:
    """What ``CUDA_HOME`` (or ``CUDA_PATH``) names."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return Path(home) if home else None


def release_of(home: Path) -> str | None:
    """Release of the nvcc of a folder, such as 13.0; None for one that does not run or does not say."""
    try:
        answer = subprocess.run([home / "bin/nvcc", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:  # for another processor, or not to be executed
        return None
    found = re.search(r"release (\d+\.\d+)", answer)
    return found.group(1) if found else None


def _homes_on_path() -> Iterator[Path]:
    """The folder above that of the ``PATH``'s nvcc, and where a link to it leads."""
    if nvcc := shutil.which("nvcc"):
        yield Path(nvcc).parent.parent
        yield Path(nvcc).resolve().parent.parent


def _has_compiler(home: Path) -> bool:
    """A script named nvcc may lie in a folder without headers, and torch takes them from there."""
    headers = [home / "include", *home.glob("targets/*/include")]
    return (home / "bin/nvcc").is_file() and any((folder / "cuda_runtime.h").is_file() for folder in headers)
