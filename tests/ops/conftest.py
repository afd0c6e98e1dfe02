"""Fixtures for tests of the native ops."""

import ctypes
import os
import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def compile_header(tmp_path_factory, repo_root):
    """compile_header(source, *flags) -> the shared library of a C++ source that includes headers of pcdet/ops.

    For headers that need no PyTorch: they compile in a second, with whatever flags a claim is about.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder, ops = tmp_path_factory.mktemp("headers"), repo_root / "pcdet" / "ops"
    libraries: dict[tuple[str, ...], ctypes.CDLL] = {}

    def compiled(source: str, *flags: str) -> ctypes.CDLL:
        key = (source, *flags)
        if key not in libraries:
            code, library = folder / "probe.cpp", folder / f"probe{len(libraries)}.so"
            code.write_text(source)
            includes = [f"-I{ops / 'include'}", f"-I{ops}"]
            command = [compiler, "-std=c++20", "-O2", "-shared", "-fPIC", *flags, *includes, code, "-o", library]
            subprocess.run(command, check=True)
            libraries[key] = ctypes.CDLL(str(library))
        return libraries[key]

    return compiled
