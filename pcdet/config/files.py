"""Where configuration files are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from pcdet.utils.places import CFGS_PARENT


def find_config_file(name: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path:
    """The file that ``name`` means: beside ``folder``, from the working directory, from above ``folder``, or shipped.

    Raises:
        FileNotFoundError: naming every place that was looked in.
    """
    places = [Path(), CFGS_PARENT]
    if folder is not None:
        folder = Path(folder).resolve()
        places = [folder, Path(), *folder.parents, CFGS_PARENT]
    candidates = [Path(name)] if Path(name).is_absolute() else [place / name for place in places]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shown = [str(c) for c in candidates if c.parent.is_dir() or c is candidates[0]]
    raise FileNotFoundError(f"configuration file {str(name)!r} not found; looked for {', '.join(dict.fromkeys(shown))}")
