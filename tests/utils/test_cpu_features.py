"""What is read off a processor, and what the variables of torch and oneDNN hide of it."""

import subprocess
import sys

import pytest

from pcdet.utils import cpu_features
from pcdet.utils.cpu_features import Processor, mixed_precision, read_processor


def x86(name, flags):
    """The first lines that matter of Linux's /proc/cpuinfo, for two cores."""
    core = (
        f"vendor_id\t: any\nmodel name\t: {name}\nflags\t\t: fpu sse2 sse4_1 avx {flags}\nbugs\t\t: avx512_bf16_bug\n"
    )
    return "".join(f"processor\t: {i}\n{core}\n" for i in range(2))


def arm(features):
    """Arm's form: no name, and Features for flags."""
    return f"processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd {features}\nCPU implementer\t: 0x41\n"


AVX512 = "avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"
ZEN_3 = x86("AMD EPYC 7763 64-Core Processor", "avx2 vaes vpclmulqdq")
ICE_LAKE = x86("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", AVX512)
SAPPHIRE_RAPIDS = x86("Intel(R) Xeon(R) Platinum 8488C", f"{AVX512} avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8")
ZEN_4 = x86("AMD EPYC 9R14", f"{AVX512} avx512_bf16")
GRAVITON_2 = arm("asimdhp asimddp")
GRAVITON_3 = arm("asimdhp asimddp sve i8mm bf16")
NO_FLAGS = "processor\t: 0\nhart\t: 1\nisa\t: rv64imafdc\n"


@pytest.mark.parametrize(
    ("text", "sets", "precision"),
    [
        (ZEN_3, ("AVX2",), "float32"),
        (ICE_LAKE, ("AVX2", "AVX-512"), "float32"),
        (SAPPHIRE_RAPIDS, ("AVX2", "AVX-512", "AVX512_BF16", "AMX-BF16"), "bfloat16"),
        (ZEN_4, ("AVX2", "AVX-512", "AVX512_BF16"), "bfloat16"),
        (GRAVITON_2, (), "float32"),
        (GRAVITON_3, ("Arm BF16",), "bfloat16"),
        (NO_FLAGS, None, "float32"),
        ("", None, "float32"),
    ],
)
def test_only_instructions_for_bf16_make_mixed_precision_bfloat16(text, sets, precision):
    processor = read_processor(text, {})
    assert processor.sets == sets and not processor.hidden
    assert mixed_precision(processor).name == precision


def test_the_name_is_the_systems(monkeypatch):
    assert read_processor(ZEN_4, {}).name == "AMD EPYC 9R14"
    monkeypatch.setattr(cpu_features.platform, "processor", lambda: "")
    monkeypatch.setattr(cpu_features.platform, "machine", lambda: "aarch64")
    assert read_processor(GRAVITON_3, {}).name == "aarch64"


def test_a_system_without_cpuinfo_does_not_say_what_it_has(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_features, "CPUINFO", tmp_path / "absent")
    assert read_processor(environment={}).sets is None
    (tmp_path / "cpuinfo").write_text(ZEN_4)
    monkeypatch.setattr(cpu_features, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert read_processor().hidden["AVX512_BF16"] == "ONEDNN_MAX_CPU_ISA=AVX2"


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("value", "usable"),
    [
        ("SSE41", ()),
        ("AVX", ()),
        ("AVX2", ()),
        ("avx2", ()),
        ("AVX2_VNNI", ()),
        ("AVX2_VNNI_2", ()),
        ("AVX512_CORE", ()),
        ("AVX512_CORE_VNNI", ()),
        ("AVX512_CORE_BF16", ("AVX512_BF16",)),
        ("AVX512_CORE_FP16", ("AVX512_BF16",)),
        ("AVX512_CORE_AMX", ("AVX512_BF16", "AMX-BF16")),
        ("AVX512_CORE_AMX_FP16", ("AVX512_BF16", "AMX-BF16")),
        ("AVX10_1_512", ("AVX512_BF16",)),
        ("AVX10_1_512_AMX", ("AVX512_BF16", "AMX-BF16")),
        ("AVX10_2_512", ("AVX512_BF16", "AMX-BF16")),
        ("ALL", ("AVX512_BF16", "AMX-BF16")),
        ("DEFAULT", ("AVX512_BF16", "AMX-BF16")),
        ("", ("AVX512_BF16", "AMX-BF16")),
    ],
)
def test_onednns_limit_hides_what_lies_above_it(variable, value, usable):
    processor = read_processor(SAPPHIRE_RAPIDS, {variable: value})
    assert processor.usable_bf16 == usable
    assert mixed_precision(processor).name == ("bfloat16" if usable else "float32")
    assert set(processor.hidden.values()) <= {f"{variable}={value}"}


@pytest.mark.parametrize(
    ("value", "hides"), [("default", True), ("avx2", True), ("avx512", False), ("AVX2", False), ("", False)]
)
def test_torchs_limit_hides_bf16_below_avx512(value, hides):
    for text in (SAPPHIRE_RAPIDS, ZEN_4):
        processor = read_processor(text, {"ATEN_CPU_CAPABILITY": value})
        assert bool(processor.usable_bf16) is not hides
    assert bool(read_processor(GRAVITON_3, {"ATEN_CPU_CAPABILITY": value}).hidden) is (value == "default")


def test_onednns_new_name_goes_before_the_old_one():
    environment = {"ONEDNN_MAX_CPU_ISA": "ALL", "DNNL_MAX_CPU_ISA": "AVX2"}
    assert not read_processor(ZEN_4, environment).hidden


def test_the_limit_of_x86_hides_nothing_of_an_arm():
    assert read_processor(GRAVITON_3, {"ONEDNN_MAX_CPU_ISA": "AVX2"}).usable_bf16 == ("Arm BF16",)


def test_every_setting_that_hides_is_named():
    processor = read_processor(ZEN_4, {"ONEDNN_MAX_CPU_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2"})
    both = "ONEDNN_MAX_CPU_ISA=avx2 and ATEN_CPU_CAPABILITY=avx2"
    assert processor.hidden == {"AVX-512": both, "AVX512_BF16": both}
    assert mixed_precision(processor).reason == f"this processor's bf16 arithmetic (AVX512_BF16) is hidden by {both}"


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        (
            Processor("a", ("AVX2", "AVX-512")),
            "this processor has no bf16 arithmetic (AVX2, AVX-512; needs AVX512_BF16",
        ),
        (Processor("a", ()), "this processor has no bf16 arithmetic (none of those asked about; needs AVX512_BF16"),
        (Processor("a", None), "this system does not say whether its processor has bf16 arithmetic"),
        (Processor("a", ("Arm BF16",)), "this processor has bf16 arithmetic (Arm BF16)"),
    ],
)
def test_the_reason_names_what_was_found_and_what_is_needed(processor, reason):
    assert mixed_precision(processor).reason.startswith(reason)


def test_no_torch_is_needed(repo_root):
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom pcdet.utils.cpu_features import *\nprint(read_processor().name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=repo_root)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
