"""Figures of runs that no test looks at: made by their task, but not laid out and rendered, which takes seconds."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lo_theory.lab import drawing

_COUNT = itertools.count()
_RENDER = drawing._render


def placeholder(figure: Any, path: Path, form: str, metadata: dict[str, Any]) -> None:
    """Write one grey pixel, or an empty page, with the words of the figure; no two have equal bytes.

    So a test that compares the bytes of figures without rendering them fails.
    """
    number = f"not rendered, {next(_COUNT)}"
    if form == "png":
        words = PngInfo()
        words.add_itxt("Description", metadata["Description"])
        words.add_text("Comment", number)
        Image.new("L", (1, 1), 128).save(path, pnginfo=words)
    else:
        path.write_text(f"%PDF-1.4\n% {metadata['Subject']}\n% {number}\n%%EOF\n", encoding="utf-8")


@contextlib.contextmanager
def placeholders() -> Iterator[None]:
    """Write placeholders within."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_render", placeholder)
        yield


@contextlib.contextmanager
def rendered() -> Iterator[None]:
    """Render figures within, also where a test as a whole does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_render", _RENDER)
        yield
