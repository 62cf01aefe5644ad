"""Docstrings as they are meant: plain text with code in backticks, in which * multiplies and < compares."""

from __future__ import annotations

import re
from typing import Any

import griffe

CODE = re.compile(r"(``.+?``|`[^`\n]+`)", re.DOTALL)
BULLET = re.compile(r"(?m)^(\s*)\\\* ")


class PlainText(griffe.Extension):
    """Escapes what Markdown would take for emphasis and for tags, outside code; lists stay lists."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Escape the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = escaped(obj.docstring.value)


def escaped(text: str) -> str:
    """The text with * and < escaped outside of code."""
    parts = CODE.split(text)
    parts[::2] = [re.sub(r"\*", r"\\*", part).replace("<", "&lt;") for part in parts[::2]]
    return BULLET.sub(r"\1* ", "".join(parts))
