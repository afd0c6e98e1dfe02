"""Whether the CUDA ops need an nvcc that `make setup` has to install: prints yes or no.

    python tools/wants_nvcc.py

Yes where torch is built for CUDA 13, the ops are to be built with CUDA (there is an NVIDIA driver, or FORCE_CUDA=1) and
no toolkit of the machine fits; FORCE_CUDA=0 and CUDA_HOME leave the choice to the caller. Exit status 1, with the
reason, where nvcc is missing and cannot be had as wheels.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from pcdet.utils.cuda_toolkit import WHEELS_MAJOR, fitting_toolkit, major, named_home, wheels_folder


def wants_nvcc(cuda: str | None, forced: str, has_driver: bool) -> bool:
    """Whether the wheels are to be installed, or kept up to date where they are in use.

    Args:
        cuda: torch's version of CUDA; None for a torch without.
        forced: FORCE_CUDA, "" where it is not set.
        has_driver: whether the machine has an NVIDIA driver.

    Raises:
        SystemExit: with the reason; nvcc is needed, and no wheels hold it.
    """
    if cuda is None or forced == "0" or named_home() or not (has_driver or forced == "1"):
        return False
    toolkit = fitting_toolkit(cuda)
    if toolkit is None and major(cuda) != WHEELS_MAJOR:
        raise SystemExit(
            f"torch is built for CUDA {cuda}, and nvcc {major(cuda)} is neither on the PATH nor in /usr/local/cuda. "
            f"make installs nvcc {WHEELS_MAJOR} alone: take a torch of CUDA {WHEELS_MAJOR} (TORCH=...), set CUDA_HOME "
            f"to a toolkit of CUDA {major(cuda)}, or leave the CUDA ops out: make setup FORCE_CUDA=0"
        )
    return toolkit is None or wheels_folder() in toolkit.home.parents


if __name__ == "__main__":
    wanted = wants_nvcc(torch.version.cuda, os.environ.get("FORCE_CUDA", ""), shutil.which("nvidia-smi") is not None)
    print("yes" if wanted else "no")
