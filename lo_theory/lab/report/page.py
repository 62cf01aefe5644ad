"""The HTML page of a run: one file, nothing outside of it; every text of a run is escaped.

Writes the file it is told.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from lo_theory.lab.report.look import SCRIPT, STYLE
from lo_theory.lab.report.source import Source
from lo_theory.lab.table import to_html
from lo_theory.problem.storage import write_atomically

__all__ = ["page", "write_report"]

_LARGEST_DOWNLOAD = 400_000  # bytes of a CSV that the page carries; larger ones are named
_FACTS = ("seconds", "workers", "threads", "device", "crew", "processor", "system")
_CSV = ("table.csv", "classes.csv", "pooled.csv", "table.csv.gz", "classes.csv.gz")


def write_report(source: Source, path: Path) -> Path:
    """Write the page, whole or not at all; ValueError where ``path`` is a folder, or a figure is damaged."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: the page is one file, such as {path / 'report.html'}")
    content = page(source).encode()
    return write_atomically(path, lambda file: file.write(content))


def page(source: Source) -> str:
    """The whole page. Its policy for the browser forbids every request, whatever its content."""
    parts = {
        "tables": ("Tables", "".join(map(to_html, source.tables))),
        "figures": ("Figures", "".join(_figure(source, path) for path in source.figures)),
        "data": ("Data", _data(source)),
        "versions": ("How it was made", _facts(source.facts)),
        "configuration": ("Configuration", f"<pre><code>{escape(source.config)}</code></pre>"),
    }
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in parts.items())
    sections = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'
        for name, (title, content) in parts.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_policy()}">
<link rel="icon" href="data:,">
<title>{escape(source.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(source.title)}</h1>
<p class="quiet">{_line(source)}</p>
{_command(source.facts)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{_failures(source)}{sections}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _line(source: Source) -> str:
    """What a reader should know first: where it stands, how long it took, on what."""
    words = [f"run <code>{escape(source.folder.resolve().name)}</code>"]
    if source.finished is not None:
        words.append("{} of {} cells of the sweep are finished".format(*source.finished))
    if "seconds" in source.facts:
        words.append(f"{float(source.facts['seconds']):.0f} seconds")
    words += [escape(str(source.facts[name])) for name in ("device", "processor") if source.facts.get(name)]
    return ", ".join(words)


def _command(facts: Mapping[str, Any]) -> str:
    command = facts.get("command")
    return f"<pre><code>{escape(str(command))}</code></pre>" if command else ""


def _failures(source: Source) -> str:
    """What failed and what is missing; nothing where nothing does."""
    count = source.finished
    missing = count[1] - count[0] if count is not None else 0
    if not source.failed and not missing:
        return ""
    said = f"{missing} of {count[1]} cells are missing" if count is not None else ""
    items = "".join(
        f"<li><code>{escape(failure.label)}</code>: {escape(failure.error)}"
        + (
            f"<details><summary>traceback</summary><pre>{escape(failure.trace)}</pre></details>"
            if failure.trace
            else ""
        )
        + "</li>"
        for failure in source.failed
    )
    failed = f"<p>{len(source.failed)} failed at the last attempt:</p><ul>{items}</ul>" if items else ""
    return (
        '<section class="alarm" id="failed" aria-labelledby="failed-title">'
        f'<h2 id="failed-title">Not everything is here</h2><p>{said}; the same command computes what is missing.</p>'
        f"{failed}</section>"
    )


def _figure(source: Source, path: Path) -> str:
    """A PNG in the page; its size stands in the tag, so that nothing moves while it is decoded."""
    width, height, words = _measure(path)
    data = base64.b64encode(path.read_bytes()).decode()
    words = words or f"Figure of {source.title}; its numbers are in the tables above"
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(words)}"><figcaption>{escape(path.name)}, {escape(path.with_suffix(".pdf").name)}</figcaption>'
        "</figure>"
    )


def _measure(path: Path) -> tuple[int, int, str]:
    """Width and height of a PNG in pixels, and what it says of itself."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.width, image.height, str(image.info.get("Description", ""))
    except OSError as error:
        raise ValueError(f"{path} is damaged: remove it, and lo-theory figure draws it again") from error


def _data(source: Source) -> str:
    items = []
    for name in _CSV:
        path = source.folder / name
        if not path.exists():
            continue
        size = path.stat().st_size
        label = f"<code>{name}</code> ({size / 1000:,.0f} kB)"
        if size <= _LARGEST_DOWNLOAD:
            data = base64.b64encode(path.read_bytes()).decode()
            kind = "application/gzip" if path.suffix == ".gz" else "text/csv"
            label = f'<a download="{name}" href="data:{kind};base64,{data}">{label}</a>, in this page'
        else:
            label += ", in the run folder"
        items.append(f"<li>{label}</li>")
    words = (
        "Every measured quantity with its keys, n, sum, squared deviations, mean and 95 % interval, as figures draw it."
    )
    return f"<p>{words}</p><ul>{''.join(items)}</ul>"


def _facts(facts: Mapping[str, Any]) -> str:
    pairs = [(name, facts[name]) for name in _FACTS if facts.get(name) is not None]
    pairs += sorted(dict(facts.get("versions", {})).items())
    if not pairs:
        return "<p>Nothing is recorded yet.</p>"
    return "<dl>" + "".join(f"<dt>{escape(str(a))}</dt><dd>{escape(str(b))}</dd>" for a, b in pairs) + "</dl>"
