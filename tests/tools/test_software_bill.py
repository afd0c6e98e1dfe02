"""The bill of materials and the page of licences, with stand-ins for the two commands that look at the environment."""

import json
import sys
from importlib import metadata

import pytest

# Write down what they are given.
BILL = """
import json, sys, tomllib
given = dict(zip(sys.argv, sys.argv[1:]))
with open(given["--pyproject"], "rb") as project, open(given["-o"], "w") as bill:
    json.dump(tomllib.load(project) | {"seen": SEEN}, bill)
"""
LICENCES = """
import sys
print("| Name   | License |\\n|--------|---------|\\n| " + sys.argv[-1] + " | MIT     |")
"""
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="the stand-in reads TOML, as Python 3.11 can")


@pytest.fixture
def bill(tool):
    return tool("dev/software_bill")


def command(folder, name, text):
    """An executable Python script."""
    (folder / name).write_text(f"#!{sys.executable}\n{text}")
    (folder / name).chmod(0o755)


@needs_toml
def test_the_bill_is_about_the_project_with_its_licence_and_requirements(bill, tmp_path):
    command(tmp_path, "cyclonedx-py", BILL.replace("SEEN", "''"))
    bill.write_sbom(tmp_path, tmp_path / "bill.json")
    project = json.loads((tmp_path / "bill.json").read_text())["project"]
    assert (project["name"], project["license"]) == ("pcdet", "Apache-2.0")
    assert project["version"] and {"torch", "easydict==1.14"} <= set(project["dependencies"])


@needs_toml
def test_a_bill_that_names_a_folder_of_the_machine_is_refused(bill, tmp_path):
    command(tmp_path, "cyclonedx-py", BILL.replace("SEEN", repr(f"{sys.prefix}/lib")))
    with pytest.raises(RuntimeError, match="bill.json: the bill would name a folder of this machine"):
        bill.write_sbom(tmp_path, tmp_path / "bill.json")
    assert not (tmp_path / "bill.json").exists()


def test_the_page_tells_what_is_needed_to_run_from_what_tests_need(bill, tmp_path):
    command(tmp_path, "pip-licenses", LICENCES)
    bill.write_licences(tmp_path, tmp_path / "LICENCES.md")
    run, _, tests = (tmp_path / "LICENCES.md").read_text().partition("## Needed for tests")
    assert "| Name | License |\n|---|---|\n" in run and "| pytest | MIT |" not in run
    assert "| sortedcontainers | MIT |" in tests  # the last of the names that only the development lock holds


def test_locked_names_are_those_of_the_entries(bill, tmp_path):
    (tmp_path / "lock.txt").write_text(
        "# numpy\nnumpy==2.4.6 \\\n    --hash=sha256:00\n    # via easydict==1\nattrs==1\n"
    )
    assert bill.locked_names(tmp_path / "lock.txt") == {"numpy", "attrs"}


def test_spconv_counts_as_a_requirement_in_the_build_that_is_installed(bill):
    installed = {d.metadata["Name"] for d in metadata.distributions() if d.metadata["Name"].startswith("spconv")}
    assert installed == {line for line in bill.direct_requirements() if line.startswith("spconv")}
