"""What was submitted to Slurm for which folder: a small file that outlives the process that submitted it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pcdet.utils.safe_files import replacing


@dataclass
class Entry:
    """One job's submission.

    Attributes:
        name: of the submission in Slurm; no other has it.
        index: of the job in its array; None for a submission of one job.
        facts: digest of what the job's result depends on.
        task: its number in Slurm; None between the request and Slurm's answer.
    """

    name: str
    index: int | None
    facts: str
    task: str | None = None


@dataclass(frozen=True)
class Record:
    """The newest submission of each job's folder, in a JSON file.

    Attributes:
        path: of the file; its folder is made if need be.
    """

    path: Path

    def read(self) -> dict[str, Entry]:
        """Folder -> entry; empty where nothing was submitted.

        Raises:
            ValueError: the file is not what :meth:`add` writes.
        """
        if not self.path.is_file():
            return {}
        try:
            entries = json.loads(self.path.read_text())
            return {folder: Entry(**entry) for folder, entry in entries.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.path} must hold what was submitted to Slurm, but cannot be read ({error}); cancel this plan's "
                "tasks (squeue, scancel), then delete the file"
            ) from error

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Takes entries into the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {**self.read(), **entries}
        with replacing(self.path) as stream:
            stream.write(json.dumps({folder: asdict(entry) for folder, entry in kept.items()}, indent=1).encode())
