"""Native ops. Importing this package loads the compiled library, which registers ``torch.ops.pcdet.*``."""

import torch  # noqa: F401  (the library links against it, so it must be loaded first)

try:
    from pcdet.ops import _C  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"pcdet's native ops do not load ({error}). They are built, or rebuilt after a change of torch, by "
        "`python setup.py build_ext --inplace` in the checkout (or `make setup`)."
    ) from error
