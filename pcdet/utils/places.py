"""Where files lie, in a checkout and where the package is installed.

In a checkout the repository holds all: ``tools/cfgs``, ``data`` and ``output``. An installed package carries the model
files and the lists of frames with it, and the working directory takes the repository's place for data and outputs.
"""

from __future__ import annotations

from pathlib import Path

import pcdet

PACKAGE = Path(pcdet.__file__).resolve().parent
INSTALLED = (PACKAGE / "cfgs").is_dir()
ROOT = Path.cwd() if INSTALLED else PACKAGE.parent  # below it lie data/ and output/
CFGS_PARENT = PACKAGE if INSTALLED else ROOT / "tools"  # model files are named from here: cfgs/kitti_models/...
IMAGE_SETS = (PACKAGE if INSTALLED else ROOT) / "data" / "kitti" / "ImageSets"  # the usual division of KITTI
