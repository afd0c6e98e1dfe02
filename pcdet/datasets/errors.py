"""What may be wrong with a data set's files."""

from __future__ import annotations

MAX_SHOWN = 50  # problems in one message


class DataError(ValueError):
    """Everything that is wrong with a data set's files, found before long work starts.

    Attributes:
        problems: one sentence each.
    """

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        shown = self.problems[:MAX_SHOWN]
        if len(self.problems) > MAX_SHOWN:
            shown.append(f"... and {len(self.problems) - MAX_SHOWN} more")
        super().__init__("\n".join(shown))

    def __reduce__(self):
        return type(self), (self.problems,)


class BadFrameError(DataError):
    """A frame's point cloud is damaged; the message names the file."""
