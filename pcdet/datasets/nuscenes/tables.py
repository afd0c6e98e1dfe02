"""The tables of a nuScenes release: JSON files whose rows name one another by token. nuscenes-devkit is not needed."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.table_rows import Row, row_problems
from pcdet.utils.text_files import read_text

TABLES = (
    "category attribute visibility instance sensor calibrated_sensor ego_pose log scene sample sample_data "
    "sample_annotation map"
).split()


class Tables:
    """The rows of a release, read when they are first asked for.

    Args:
        dataroot: the folder that holds ``samples/``, ``sweeps/`` and the folder of the tables.
        version: the folder of the tables: v1.0-trainval, v1.0-mini, v1.0-test, or one of your own.

    Attributes:
        folder: where the tables lie.

    Raises:
        DataError: the folder is not there.
    """

    def __init__(self, dataroot: str | Path, version: str):
        self.dataroot, self.version = Path(dataroot), version
        self.folder = self.dataroot / version
        if not self.folder.is_dir():
            found = sorted(p.name for p in self.dataroot.glob("v1.0-*") if p.is_dir())
            there = f"it has {', '.join(found)}" if found else "it has no folder v1.0-*"
            raise DataError(
                f"{self.dataroot} has no tables of version {version} ({self.folder}); {there}; unpack the metadata of "
                "the release there, or name another VERSION"
            )
        self._rows: dict[str, list[Row]] = {}
        self._by_token: dict[str, dict[str, Row]] = {}

    def rows(self, table: str) -> list[Row]:
        """All rows of a table, in the order of its file.

        Raises:
            DataError: the file is not there or is not a list of rows with a token each, or rows lack what
                ``table_rows.FIELDS`` lists; file, row and field are named.
        """
        if table not in self._rows:
            self._rows[table] = _read_table(self.folder / f"{table}.json")
        return self._rows[table]

    def get(self, table: str, token: str) -> Row:
        """The row with this token.

        Raises:
            DataError: there is none; table and token are named.
        """
        if table not in self._by_token:
            self._by_token[table] = {row["token"]: row for row in self.rows(table)}
        try:
            return self._by_token[table][token]
        except KeyError:
            raise DataError(
                f"{self.folder / table}.json has no row with the token {token!r}, which another row names; copy the "
                "tables again from the release"
            ) from None

    def drop(self, table: str) -> None:
        """Forgets the rows of a table, whose memory another one may need."""
        self._rows.pop(table, None)
        self._by_token.pop(table, None)

    @cached_property
    def channels(self) -> dict[str, str]:
        """Token of a ``calibrated_sensor`` row -> the channel of its sensor, LIDAR_TOP for example."""
        rows = self.rows("calibrated_sensor")
        return {row["token"]: self.get("sensor", row["sensor_token"])["channel"] for row in rows}

    @cached_property
    def key_frames(self) -> dict[str, Row]:
        """Token of a sample -> the row of ``sample_data`` that is its key frame of LIDAR_TOP."""
        return self.key_frames_of("LIDAR_TOP")

    def key_frames_of(self, channel: str) -> dict[str, Row]:
        """Token of a sample -> the row of ``sample_data`` that is its key frame of a channel.

        Raises:
            DataError: a key frame's ``calibrated_sensor`` is not there.
        """
        rows = [row for row in self.rows("sample_data") if row["is_key_frame"]]
        if lost := [row for row in rows if row["calibrated_sensor_token"] not in self.channels]:
            raise DataError(
                f"{self.folder / 'sample_data'}.json: the row {lost[0]['token']!r}: calibrated_sensor_token is "
                f"{lost[0]['calibrated_sensor_token']!r}, of which calibrated_sensor.json has no row "
                f"({len(lost)} such rows); copy both tables again from the release"
            )
        return {row["sample_token"]: row for row in rows if self.channels[row["calibrated_sensor_token"]] == channel}

    def category_of(self, annotation: Row) -> str:
        """Name of the category of the object that a row of ``sample_annotation`` labels.

        Raises:
            DataError: its instance or that one's category is not there.
        """
        return self.get("category", self.get("instance", annotation["instance_token"])["category_token"])["name"]


def _read_table(file: Path) -> list[Row]:
    if not file.is_file():
        raise DataError(
            f"{file} is not there; copy it from the release, which has {len(TABLES)} tables: {', '.join(TABLES)}"
        )
    try:
        rows = json.loads(read_text(file))
    except ValueError as error:
        raise DataError(f"{file} cannot be read: {error}; copy it again from the release") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "token" in row for row in rows):
        raise DataError(f"{file} must hold a list of rows with a token each; copy it again from the release")
    if problems := row_problems(file, rows):
        raise DataError(problems)
    return rows
