"""What becomes of a CUDA source: the same lines, or an error with file and line for what is not known."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = ROOT / "tools/dev/cuda_emulator"
sys.path.insert(0, str(EMULATOR))

from translate import translate, translate_tree  # noqa: E402

LAUNCH = """
void host(int* out) {
  fill<float, 2><<<dim3(1, 2),
                   32, 0, stream>>>(out,
                                    3);
  after();
}
"""


def test_lines_keep_their_numbers():
    for path in sorted((ROOT / "pcdet/ops").rglob("*.cu*")):
        assert translate(path.read_text(), str(path)).count("\n") == path.read_text().count("\n")
    assert translate(LAUNCH, "a.cu").splitlines()[5] == "  after();"


def test_a_launch_names_its_kernel_and_keeps_its_arguments():
    text = " ".join(translate(LAUNCH, "a.cu").split())
    assert '::cuda_emulator::launch({"fill<float, 2>", nullptr, {__FILE__, __LINE__}}' in text
    assert "Config(dim3(1, 2), 32, 0, stream)" in text and "out, 3)" in text


def test_a_kernel_whose_attributes_are_set_is_known_by_its_address():
    text = translate("cudaFuncSetAttribute(merge, x, 1);\nmerge<<<1, 2, 3, s>>>(a);", "a.cu")
    assert "reinterpret_cast<const void*>(merge)" in text


def test_comments_are_not_taken_for_code():
    assert translate("int a;  // x<<<1, 2>>>(y) and __shared__ int b;\n", "a.cu").rstrip() == "int a;"


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("\n__constant__ int table[3];\n", 2, "__constant__"),
        ("extern __shared__ int2 a[], b[];\n", 1, "__shared__"),
        ('void f() {\n\n  asm volatile("membar.gl;");\n}\n', 3, "asm"),
        ("\n__shared__ int (*table)[2];\n", 2, "__shared__"),
    ],
)
def test_what_is_not_known_is_an_error_with_file_and_line(text, line, word):
    with pytest.raises(ValueError, match=rf"a\.cu:{line}: the emulator knows no '{word}'"):
        translate(text, "a.cu")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("\nfill<<<1, 32(out);\n", "'<<<' of a launch has no '>>>'"),
        ("\nfill<<<1, 32>>> (out);\n", "'(' must follow '>>>' of a launch at once"),
        ("\nfill<<<1, 32>>>(out;\n", "'(' is not closed"),
    ],
)
def test_a_launch_that_cannot_be_read_is_an_error_with_file_and_line(text, missing):
    with pytest.raises(ValueError, match=re.escape(f"a.cu:2: {missing}")):
        translate(text, "a.cu")


def test_an_unknown_function_of_cuda_is_named_by_the_compiler(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("the emulator is compiled with g++, which was not found")
    source = tmp_path / "source/a.cu"
    source.parent.mkdir()
    source.write_text("__global__ void kernel(int* out) {\n  *out = __shfl_up_sync(~0u, 1, 1);\n}\n")
    (kernel,) = translate_tree(source.parent, tmp_path / "out")
    flags = ["-std=c++20", "-fsyntax-only", f"-I{EMULATOR}/include", "-include", "cuda_emulator/cuda.h"]
    done = subprocess.run(["g++", *flags, "-x", "c++", kernel], capture_output=True, text=True)
    assert done.returncode != 0
    assert "a.cu:2:" in done.stderr and "__shfl_up_sync" in done.stderr
