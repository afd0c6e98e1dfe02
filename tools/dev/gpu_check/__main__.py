"""``python tools/dev/gpu_check``: the folder as a command."""

import sys
from pathlib import Path

DEV = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(DEV), str(DEV.parents[1])]  # this package, and pcdet of this checkout

from gpu_check.main import main

if __name__ == "__main__":
    sys.exit(main())
