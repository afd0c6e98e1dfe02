"""Puts the repository first on ``sys.path``, so that the tools run without an installation: import this first."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
