"""A plugin of pytest that writes each test's outcome at once and leaves out those that have passed before.

``-p gpu_check.record_tests`` with the file in the environment variable GPU_CHECK_RECORD. Its lines are
``{"total": N}`` and ``{"test": ..., "outcome": passed, failed or skipped, "seconds": ..., "reason": ...}``. A test run
that was ended thus goes on where it was, with or without pytest-xdist.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

FILE = Path(os.environ["GPU_CHECK_RECORD"])
BEFORE = FILE.with_suffix(".before")  # as it was at the start: every worker, a late one too, leaves out the same tests
if "PYTEST_XDIST_WORKER" not in os.environ and FILE.is_file():
    with FILE.open("rb+") as _record:
        _record.truncate(FILE.read_bytes().rfind(b"\n") + 1)  # a kill may have cut the last line
    shutil.copyfile(FILE, BEFORE)


def _append(line: dict) -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with FILE.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def _passed_before() -> set[str]:
    if not BEFORE.is_file():
        return set()
    lines = map(json.loads, BEFORE.read_text().splitlines())
    last = {line["test"]: line["outcome"] for line in lines if "test" in line}
    return {test for test, outcome in last.items() if outcome == "passed"}


@pytest.hookimpl(trylast=True)  # after the marks have chosen
def pytest_collection_modifyitems(config, items):
    """Deselects what has passed."""
    passed = _passed_before()
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
    items[:] = [item for item in items if item.nodeid not in passed]
    if not hasattr(config, "workerinput"):
        _append({"total": len(items) + len(passed)})


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids):
    """The same on the process that hands the tests out, which collects none itself."""
    _append({"total": len(ids) + len(_passed_before())})


@pytest.hookimpl
def pytest_sessionstart(session):
    """Only the process that reports writes."""
    if hasattr(session.config, "workerinput"):
        return
    session.config.pluginmanager.register(_Writer())


class _Writer:
    def __init__(self):
        self.outcomes: dict[str, dict] = {}

    def pytest_runtest_logreport(self, report):
        line = self.outcomes.setdefault(
            report.nodeid, {"test": report.nodeid, "outcome": "passed", "seconds": 0.0, "reason": ""}
        )
        line["seconds"] = round(line["seconds"] + report.duration, 3)
        if report.failed:
            line["outcome"] = "failed"
        elif report.skipped and line["outcome"] != "failed":
            line["outcome"], line["reason"] = "skipped", _reason(report)
        if report.when == "teardown":
            _append(self.outcomes.pop(report.nodeid))


def _reason(report) -> str:
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail}"
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_sessionfinish(session, exitstatus):
    """Nothing left to run is success, not an empty collection."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and _passed_before():
        session.exitstatus = pytest.ExitCode.OK
