"""The locks in requirements/: what they must hold so that a set-up installs the same files everywhere."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12")
# The lock's name -> the files of direct requirements that it is made from.
LOCKS = {
    "lock": ("requirements.txt",),
    "lock-dev": ("requirements.txt", "requirements-dev.txt"),
    "lock-tools": ("requirements-tools.txt",),
}
CHOSEN_BY_THE_MACHINE = re.compile(r"torch$|spconv|cumm|triton|nvidia-|cuda-")


def read_lock(kind: str, python: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Name -> requirement and SHA-256 sums of each entry of a lock."""
    return read_entries(f"{kind}-py{python}.txt")


def read_entries(file: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Name -> requirement and SHA-256 sums of each entry of a file of requirements/."""
    text = (ROOT / "requirements" / file).read_text().replace("\\\n", " ")
    entries = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = (part.strip() for part in line.split("--hash="))
            parsed = Requirement(requirement)
            assert canonicalize_name(parsed.name) not in entries, f"{parsed.name} stands twice"
            entries[canonicalize_name(parsed.name)] = (parsed, hashes)
    return entries


def direct_requirements(name: str, python: str, machine: str) -> list[Requirement]:
    """The lines of a requirements file that hold for a Python on Linux."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return [r for r in requirements if holds(r, python, machine)]


def holds(requirement: Requirement, python: str, machine: str) -> bool:
    """Whether a requirement's marker, if it has one, holds for a Python on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def installed_from(lock: dict[str, tuple[Requirement, list[str]]], python: str, machine: str) -> dict[str, tuple]:
    """Name -> version and sums of what a lock installs on a processor."""
    held = {name: entry for name, entry in lock.items() if holds(entry[0], python, machine)}
    return {name: (str(requirement.specifier), hashes) for name, (requirement, hashes) in held.items()}


every_lock = pytest.mark.parametrize("kind", LOCKS)
every_python = pytest.mark.parametrize("python", PYTHONS)


@every_python
@every_lock
def test_each_direct_requirement_is_locked_at_a_version_it_allows(kind, python):
    lock = read_lock(kind, python)
    for name in LOCKS[kind]:
        for wanted in direct_requirements(name, python, "x86_64"):
            locked = lock.get(canonicalize_name(wanted.name))
            assert locked, f"{wanted} of {name} is not in {kind}-py{python}.txt: make lock-versions"
            (version,) = locked[0].specifier
            assert version.operator == "=="
            assert wanted.specifier.contains(version.version), f"{wanted} of {name}, {locked[0]}: make lock-versions"


@every_python
@every_lock
def test_each_entry_has_one_version_and_sums(kind, python):
    for requirement, hashes in read_lock(kind, python).values():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in hashes), requirement


@every_python
@every_lock
def test_what_the_machine_chooses_is_in_no_lock(kind, python):
    chosen = [name for name in read_lock(kind, python) if CHOSEN_BY_THE_MACHINE.match(name)]
    assert not chosen, "a new torch may bring new packages: name them in requirements/cuda.txt, then make lock-versions"


@every_python
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_development_lock_installs_what_the_runtime_lock_does(python, machine):
    """The text of a marker may differ where two packages ask for a third under different markers that mean the same."""
    runtime, development = (installed_from(read_lock(kind, python), python, machine) for kind in ("lock", "lock-dev"))
    assert {name: development.get(name) for name in runtime} == runtime


@every_python
def test_the_lock_holds_what_torch_and_spconv_need(python):
    """By their own metadata: torch 2.13.0, spconv 2.3.8, cumm 0.7.11."""
    of_torch = {"filelock", "typing-extensions", "setuptools", "sympy", "networkx", "jinja2", "fsspec"}
    of_spconv = {"pccm", "ccimport", "pybind11", "fire", "numpy", "sympy"}
    assert of_torch | of_spconv <= set(read_lock("lock", python))


@every_python
def test_setuptools_suits_every_torch_that_is_supported(python):
    """2.11 and 2.12 ask for setuptools below 82."""
    requirement, _ = read_lock("lock", python)["setuptools"]
    assert Requirement("setuptools>=77.0.3,<82").specifier.contains(str(requirement.specifier).removeprefix("=="))


def test_the_compiler_is_locked_for_both_processors_and_for_the_cuda_that_torch_brings():
    """torch 2.11 to 2.13 ask for the runtime of CUDA 13.0, 13.0.96, in their metadata."""
    lock = read_entries("lock-nvcc.txt")
    wanted = {canonicalize_name(r.name): r for r in direct_requirements("requirements-nvcc.txt", "3.11", "x86_64")}
    assert {name: requirement for name, (requirement, _) in lock.items()} == wanted
    assert all(len(set(hashes)) >= 2 for _, hashes in lock.values()), "x86-64 and aarch64"
    assert all(str(requirement.specifier).startswith("==13.0.") for requirement in wanted.values())
    assert str(wanted["nvidia-cuda-runtime"].specifier) == "==13.0.96"


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name)
def test_no_file_names_a_registry_or_a_folder_of_a_machine(path):
    found = re.findall(r"https?:|file:|--(?:extra-)?index-url|--find-links|(?<=\s)/\S+", path.read_text())
    assert not found


def test_the_page_of_licences_lists_what_is_locked():
    """It is written under Python 3.11."""
    rows = re.findall(r"^\| (\S+) \| (\S+) \|", (ROOT / "docs/LICENCES.md").read_text(), re.MULTILINE)
    listed = {canonicalize_name(name): version for name, version in rows}
    locked = {name: str(entry[0].specifier)[2:] for name, entry in read_lock("lock-dev", "3.11").items()}
    assert locked.items() <= listed.items(), "make sbom"
    assert {"torch", "spconv"} <= set(listed)
