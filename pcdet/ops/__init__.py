"""Native ops. Importing this package loads the compiled library, which registers ``torch.ops.pcdet.*``."""

from pathlib import Path

import torch

LIBRARY = Path(__file__).with_name("_C.so")  # linked against torch, which must be loaded first

try:
    torch.ops.load_library(str(LIBRARY))
except OSError as error:
    raise ImportError(
        f"pcdet's native ops do not load ({error}). They are built, or rebuilt after a change of torch, by "
        "`python setup.py build_ext --inplace` in the checkout (or `make setup`)."
    ) from error
