"""What the names of checkpoint files say."""

from __future__ import annotations

import os
import re
from pathlib import Path

BEST = "checkpoint_best.pth"


def epoch_id(ckpt: str | os.PathLike) -> str:
    """The last run of digits in the checkpoint's path, as in OpenPCDet; that of the best is ``best``."""
    if Path(ckpt).name == BEST:
        return "best"
    numbers = re.findall(r"\d+", str(ckpt))
    return numbers[-1] if numbers else "no_number"
