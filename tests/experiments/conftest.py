"""A plan that was carried out with fake tools."""

import pytest
from support.fake_tools import SHORT, FakeTools


@pytest.fixture(scope="session")
def short_plan(tmp_path_factory):
    """(tools, results) of the short plan; not to be written to."""
    fake = FakeTools(tmp_path_factory.mktemp("short") / "fake")
    return fake, fake.carry_out(SHORT)
