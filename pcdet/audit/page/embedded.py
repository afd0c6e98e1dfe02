"""JSON that stands in an HTML file."""

from __future__ import annotations

import json
from typing import Any


def json_text(content: Any) -> str:
    r"""JSON that stands in a script element: no character of it can end the element or begin a comment.

    All of it is ASCII, so that line separators (U+2028, U+2029) and halves of characters are escapes too.

    Args:
        content: of mappings, lists, texts and numbers.

    Raises:
        ValueError: a number is not finite.
    """
    found = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        found = found.replace(character, f"\\u{ord(character):04x}")
    return found
