"""A database of objects on disk, a folder of points and the file that lists them, made anew without a mixed state.

Where a file lists what is in the folder, new points go into a folder beside it; the two change places when all is
written. A kill, a full disk or a damaged cloud on the way leaves the old database as it was. A kill in the change
leaves no list, which gt_sampling names; the next run finds the points and writes only the list.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pcdet.utils import safe_files, safe_pickle

NEW, OLD = ".new", ".old"


@dataclass(frozen=True)
class ObjectDatabase:
    """Where a database lies.

    Attributes:
        folder: of the objects' points; its name stands in the entries' paths.
        listing: the file that lists them.
    """

    folder: Path
    listing: Path

    @property
    def _place(self) -> Path:
        """The folder itself, where a link leads to it: what takes its place lies on the same disk."""
        return self.folder.resolve()

    def _beside(self, ending: str) -> Path:
        return self._place.with_name(self._place.name + ending)

    def open_workplace(self) -> Path:
        """The folder into which points are written: the database's own, unless it is in use; it is made.

        A stopped run has the same one when it goes on.
        """
        is_used = self.listing.exists() or self._beside(NEW).exists()
        workplace = self._beside(NEW) if is_used else self._place
        workplace.mkdir(exist_ok=True)
        return workplace

    def replace(self, entries: Mapping[str, list[dict]]) -> None:
        """Puts what was written in the place of an older database, and lists it.

        Args:
            entries: class -> objects, all of whose points lie in the workplace.

        Raises:
            OSError: the disk is full or the folder cannot be written to.
        """
        if self._beside(NEW).exists():
            safe_files.remove(self.listing)
            if self._place.exists():
                self._remove_old()
                self._place.rename(self._beside(OLD))
            self._beside(NEW).rename(self._place)
        safe_pickle.dump(entries, self.listing)
        self._remove_old()

    def _remove_old(self) -> None:
        if self._beside(OLD).exists():
            shutil.rmtree(self._beside(OLD))
