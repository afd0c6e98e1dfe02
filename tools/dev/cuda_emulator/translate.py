"""CUDA sources rewritten into C++ that g++ compiles with ``include/cuda_emulator/cuda.h``; lines keep their numbers.

What is rewritten is what no macro can say: launches, shared variables, the dispatch key. The rest of CUDA's vocabulary
lies in ``cuda.h``. What is not known raises ValueError here or does not compile; nothing is left out silently.
"""

from __future__ import annotations

import re
from pathlib import Path

SUFFIXES = {".cu", ".cuh", ".h", ".inc", ".cpp"}
CLOSING = {"(": ")", "[": "]", "{": "}"}
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
VARIABLE = re.compile(r"\s*(\w+)\s*((?:\[.*\])?)\s*")  # its name and its dimensions
# CUDA's words that neither cuda.h nor this file knows; a macro of the same name would hide them.
UNKNOWN = re.compile(r"\b(__shared__|__constant__|__managed__|__grid_constant__|__cluster_dims__|asm)\b|<<<|>>>")


def translate(text: str, name: str) -> str:
    """CUDA source -> C++ source with the same lines. ``name`` is for errors (ValueError): file and line."""
    text = _without_comments(text)
    text = _shared_variables(text)
    text = _launches(text, name)
    text = re.sub(r"\bTORCH_LIBRARY_IMPL\(pcdet, CUDA,", "TORCH_LIBRARY_IMPL(pcdet, PrivateUse1,", text)
    text = re.sub(r"#define PCDET_DISPATCH_KEY CUDA\b", "#define PCDET_DISPATCH_KEY PrivateUse1", text)
    text = re.sub(r"\bat::kCUDA\b", "at::kPrivateUse1", text)
    text = re.sub(r"\b__noinline__\b", "__attribute__((noinline))", text)
    if left := UNKNOWN.search(text):
        raise ValueError(f"{name}:{_line(text, left.start())}: the emulator knows no {left[0]!r} of this form")
    return text


def translate_tree(source: Path, target: Path) -> list[Path]:
    """Mirrors the sources below a folder -> the translated .cu files. Files that would not change are not written."""
    kernels = []
    for path in sorted(source.rglob("*")):
        if path.suffix not in SUFFIXES:
            continue
        out = target / path.relative_to(source)
        write_if_changed(out, f'#line 1 "{path}"\n' + translate(path.read_text(), str(path)))
        if path.suffix == ".cu":
            kernels.append(out)
    return kernels


def write_if_changed(path: Path, text: str) -> None:
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _without_comments(text: str) -> str:
    """Comments become blanks: what they say looks like code."""

    def blank(match: re.Match) -> str:
        return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])

    return COMMENT_OR_STRING.sub(blank, text)


def _closing_bracket(text: str, at: int) -> int | None:
    """The place of the bracket that closes the one at ``at``; None where nothing does."""
    opened, closed = text[at], CLOSING[text[at]]
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == opened) - (text[i] == closed)
        if depth == 0:
            return i
    return None


def _start_of_name(text: str, end: int) -> int:
    """Where the (qualified, templated) name begins that ends before ``end``."""
    begin = end
    if text[begin - 1] == ">":
        depth = 0
        while True:
            begin -= 1
            depth += (text[begin] == ">") - (text[begin] == "<")
            if depth == 0:
                break
    while re.match(r"[\w:]", text[begin - 1]):
        begin -= 1
    return begin


def _launches(text: str, name: str) -> str:
    """``kernel<<<config>>>(arguments)`` -> a call of ``cuda_emulator::launch``."""
    # A kernel whose attributes are set is known by its address, which only an expression with all its types has.
    with_attributes = set(re.findall(r"cudaFuncSetAttribute\(\s*([\w:<>]+)\s*,", text))
    while (at := text.find("<<<")) >= 0:
        place = f"{name}:{_line(text, at)}"
        if (end := text.find(">>>", at)) < 0:
            raise ValueError(f"{place}: '<<<' of a launch has no '>>>'")
        begin, opened = _start_of_name(text, at), end + 3
        if text[opened : opened + 1] != "(":
            raise ValueError(f"{place}: '(' must follow '>>>' of a launch at once")
        if (closed := _closing_bracket(text, opened)) is None:
            raise ValueError(f"{place}: '(' is not closed")
        kernel, config, arguments = text[begin:at], text[at + 3 : end], text[opened + 1 : closed]
        address = f"reinterpret_cast<const void*>({kernel})" if kernel in with_attributes else "nullptr"
        call = (
            f'::cuda_emulator::launch({{"{kernel}", {address}, {{__FILE__, __LINE__}}}}, '
            f"::cuda_emulator::Config({config}), [=](auto... emulated) {{ {kernel}(emulated...); }}"
            f"{',' if arguments.strip() else ''} {arguments})"
        )
        text = text[:begin] + call + text[closed + 1 :]
    return text


def _shared_variables(text: str) -> str:
    """``__shared__`` declarations -> references into the block's shared memory."""
    text = re.sub(
        r"\bextern\s+__shared__\s+([\w:<>]+)\s+(\w+)\[\];",
        r"\1* \2 = static_cast<\1*>(::cuda_emulator::dynamic_shared({__FILE__, __LINE__}));",
        text,
    )
    return re.sub(r"(?<!extern )\b__shared__\s+([^;]+);", lambda match: _shared_declaration(match[1]) or match[0], text)


def _shared_declaration(declared: str) -> str | None:
    """``T a[2], b`` -> a reference for each. A static byte in the function is the variable's key: one a template.

    None for other forms, such as a pointer to an array; ``translate`` names what is left.
    """
    declared = " ".join(declared.split())
    first, *more = _at_commas(declared)
    kind = re.fullmatch(r"(.*?)\s*\b\w+\s*(?:\[.*\])?\s*", first)
    variables = [VARIABLE.fullmatch(part) for part in (first[kind.end(1) :], *more)] if kind else [None]
    if not all(variables):
        return None
    out = []
    for variable, dimensions in (found.groups() for found in variables):
        out.append(
            f"static char key_of_{variable}; auto& {variable} = ::cuda_emulator::shared<{kind[1]} {dimensions}>"
            f'(&key_of_{variable}, "{variable}", {{__FILE__, __LINE__}});'
        )
    return " ".join(out)


def _at_commas(text: str) -> list[str]:
    """Split at the commas that are in no bracket."""
    parts, depth, last = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "([{<") - (char in ")]}>")
        if char == "," and depth == 0:
            parts.append(text[last:i])
            last = i + 1
    return [*parts, text[last:]]
