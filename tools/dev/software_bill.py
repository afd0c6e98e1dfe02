"""Writes what this environment holds: a software bill of materials (CycloneDX, JSON) and a page of licences.

python tools/dev/software_bill.py --tools FOLDER [--sbom FILE] [--licences FILE], run by the interpreter of the
environment that is described; FOLDER holds the commands of requirements-tools.txt. ``make sbom`` calls it.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pcdet.utils.safe_files import replacing

PAGE = """# Licences

What `make setup` and `make test` install, as the packages declare it; pcdet itself is under Apache-2.0 (`LICENSE`).
Written by `make sbom` on {platform}. `UNKNOWN`: the package declares none. Another machine chooses other builds of
torch and spconv; a CUDA build of torch brings NVIDIA's libraries, under NVIDIA's own licences.

## Needed to run

{runtime}

## Needed for tests, lint and benchmarks only

{development}
"""


def direct_requirements() -> list[str]:
    """The lines of requirements.txt, and the torch and the spconv that are installed, as requirements."""
    lines = [line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    chosen = [d.metadata["Name"] for d in metadata.distributions() if re.match("torch$|spconv", d.metadata["Name"])]
    return [line for line in lines if line and not line.startswith("#")] + sorted(chosen)


def project_table() -> str:
    """This project as a pyproject file that the bill's tool understands: name, version and licence as setup.py says."""
    command = [sys.executable, "setup.py", "--name", "--version", "--license"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    name, version, licence = said
    fields = {"name": name, "version": version, "license": licence, "dependencies": direct_requirements()}
    return "[project]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


def write_sbom(tools: Path, path: Path) -> None:
    """Bill of this environment at ``path``, valid by CycloneDX's schema; RuntimeError if it names a folder of ours."""
    with tempfile.TemporaryDirectory() as folder:
        project, bill = Path(folder) / "pyproject.toml", Path(folder) / "bill.json"
        project.write_text(project_table())
        command = [tools / "cyclonedx-py", "environment", "--pyproject", project, "--output-reproducible", "--validate"]
        subprocess.run([*command, "-o", bill, sys.executable], check=True)
        text = bill.read_text()
    for place in {str(ROOT), sys.prefix}:
        if place in text:
            raise RuntimeError(f"{path}: the bill would name a folder of this machine, {place}; nothing was written")
    with replacing(path) as stream:
        stream.write(f"{text}\n".encode())


def locked_names(lock: Path) -> set[str]:
    """Names of the packages in a lock file."""
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", lock.read_text(), re.MULTILINE))


def licence_table(tools: Path, *choice: str) -> str:
    """Markdown table of name, version and licence of this environment's packages; ``choice`` narrows them down."""
    command = [tools / "pip-licenses", "--python", sys.executable, "--format", "markdown", "--with-system"]
    table = subprocess.run([*command, *choice], capture_output=True, text=True, check=True).stdout
    # The columns are padded to the widest cell: one new package would change every line.
    table = re.sub(r"-{3,}", "---", re.sub(r" +\|", " |", table))
    return table.strip()


def write_licences(tools: Path, path: Path) -> None:
    """The page of licences at ``path``; the locks of this Python say which packages are for development only."""
    version = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    runtime = locked_names(ROOT / f"requirements/lock-{version}.txt")
    development = sorted(locked_names(ROOT / f"requirements/lock-dev-{version}.txt") - runtime)
    page = PAGE.format(
        platform=f"{platform.system()}, Python {version[2:]}",
        runtime=licence_table(tools, "--ignore-packages", *development),
        development=licence_table(tools, "--packages", *development),
    )
    with replacing(path) as stream:
        stream.write(page.encode())


def main() -> None:
    """Writes the files that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, required=True, help="folder of cyclonedx-py and pip-licenses")
    parser.add_argument("--sbom", type=Path, help="write the software bill of materials to this file")
    parser.add_argument("--licences", type=Path, help="write the page of licences to this file")
    args = parser.parse_args()
    if args.sbom:
        write_sbom(args.tools, args.sbom)
    if args.licences:
        write_licences(args.tools, args.licences)


if __name__ == "__main__":
    main()
