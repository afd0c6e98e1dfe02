"""``tools/dev/check_cuda_compiles.py``, with a compiler that writes down how it is called."""

import os

import pytest


@pytest.fixture
def check(tool):
    return tool("dev/check_cuda_compiles")


def put_nvcc(folder, status=0):
    """Says its release; else keeps its arguments, its source and its PATH in ``folder``, and ends with ``status``."""
    nvcc = folder / "bin/nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        "#!/bin/sh\n"
        "case $1 in --version) echo 'Cuda compilation tools, release 13.0, V13.0.88'; exit ;; esac\n"
        f'printf "%s\\n" "$@" >"{folder}/arguments"; echo "$PATH" >"{folder}/path"; env >"{folder}/environment"\n'
        f'for word; do case $word in *.cu) cat "$word" >"{folder}/source" ;; esac; done\n'
        f"echo 'the compiler says this'; exit {status}\n"
    )
    nvcc.chmod(0o755)
    return nvcc


def test_every_source_goes_through_the_compiler_named_for_each_architecture(
    check, tmp_path, repo_root, monkeypatch, capsys
):
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-O0")
    nvcc = put_nvcc(tmp_path)
    assert check.main(["--nvcc", str(nvcc), "--arch", "sm_75", "sm_120", "--jobs", "3"]) == 0
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert {"-gencode=arch=compute_75,code=sm_75", "-gencode=arch=compute_120,code=sm_120", "--threads=3"} <= set(
        arguments
    )
    included = (tmp_path / "source").read_text()
    sources = list((repo_root / "pcdet/ops").rglob("*.cu"))
    assert sources and all(f'#include "{source}"' in included for source in sources)
    assert (tmp_path / "path").read_text().startswith(f"{nvcc.parent}{os.pathsep}")
    assert "NVCC_APPEND_FLAGS" not in (tmp_path / "environment").read_text()
    told = capsys.readouterr().out
    assert f"nvcc 13.0: {nvcc}" in told
    assert f"{len(sources)} CUDA sources compile for sm_75, sm_120" in told


def test_a_source_that_does_not_compile_fails_the_check_with_the_compilers_words(check, tmp_path, capsys):
    assert check.main(["--nvcc", str(put_nvcc(tmp_path, status=2))]) == 1
    told = capsys.readouterr().out
    assert "DO NOT COMPILE for sm_80, sm_90" in told and "the compiler says this" in told


def test_without_the_compiler_the_check_fails_whatever_toolkit_the_machine_has(check, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(put_nvcc(tmp_path).parent))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(check, "NVCC", tmp_path / "build/nvcc/bin/nvcc")
    with pytest.raises(SystemExit) as stop:
        check.main([])
    assert stop.value.code == 2
    assert "make cuda-compiles installs the one of build/nvcc" in capsys.readouterr().err
