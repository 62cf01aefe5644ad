"""The site has the tree of the repository, so that links work in both; reference and gallery are made for it."""

from __future__ import annotations

import html
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments/results"
SHOWN = (
    "*.md",
    "docs/*.md",
    "docs/_site/*.js",
    "docs/_site/*.css",
    "examples/*.py",
    "notebooks/*.ipynb",
    "experiments/*.yaml",
    "experiments/*.sh",
)
ROOMS = {
    "rng": "addresses of randomness",
    "problem": "what is drawn",
    "posterior": "what can be known",
    "thresholds": "when it can be known",
    "diffusion": "masks, orders, decoding, evaluation",
    "neural": "networks, training, models in and out",
    "testing": "laws against samplers, checks",
    "lab": "experiments over one frame",
}


@event_priority(100)
def on_files(files: Files, config: Any) -> Files:
    """Take the repository's tree in place of the folder of the pages, before other plugins see it."""
    paths = {path for pattern in SHOWN for path in ROOT.glob(pattern)}
    paths |= {path for path in RESULTS.rglob("*") if path.suffix in (".md", ".png", ".gif", ".html")}
    result = [file for file in files if file.src_dir != config.docs_dir]  # those of the theme
    for path in sorted(paths):
        result.append(File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls))
    made = {"api/lo_theory.md": package(), "docs/gallery.md": gallery()}
    made |= {f"api/{room}.md": reference(room, about) for room, about in ROOMS.items()}
    return Files([*result, *(File.generated(config, path, content=content) for path, content in made.items())])


def reference(room: str, about: str) -> str:
    """The page of a room: every public module of it."""
    folder = ROOT / "lo_theory" / room
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if not path.stem.startswith("_")]
    return "\n\n".join([f"# {room}: {about}", *(f"::: {name}" for name in names)])


def package() -> str:
    """The page of the package: its public names with their first sentences, linked to their references."""
    lo_theory = importlib.import_module("lo_theory")
    rows = []
    for name in lo_theory.__all__:
        value = getattr(lo_theory, name)
        module = getattr(value, "__module__", "")
        link = f"[`{name}`][{module}.{value.__qualname__}]" if module.startswith("lo_theory") else f"`{name}`"
        first = inspect.getdoc(value).split("\n\n")[0].replace("\n", " ") if module.startswith("lo_theory") else ""
        rows.append(f"| {link} | {escaped(first)} |")
    return "\n".join([f"# lo_theory\n\n{lo_theory.__doc__}\n\n| name | |\n|---|---|", *rows])


def gallery() -> str:
    """The page of figures: of every published folder with a README its title, first paragraph and figure."""
    parts = [
        "# Gallery",
        "One figure of each published result. The page behind a title has the command and the details.",
    ]
    for path in sorted(RESULTS.glob("*/README.md")):
        title, first, *_ = path.read_text().split("\n\n")
        drawn = [name for name in ("summary", "effects", "figure", "decode") if path.with_name(f"{name}.png").exists()]
        folder = f"../experiments/results/{path.parent.name}"
        parts += [f"## [{title.removeprefix('# ')}]({folder}/README.md)", _unlinked(first)]
        parts += [f"![{title.removeprefix('# ')}]({folder}/{name}.png)" for name in drawn[:1]]
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Text for a cell of a table, in which | and < are themselves."""
    return text.replace("|", "&#124;").replace("<", "&lt;")


def _unlinked(text: str) -> str:
    """The words of a paragraph, its links (which are relative to another page) dropped."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)


NAME = re.compile(r"`(lo_theory(?:\.\w+)+)`(?!\])")
SCRIPT = re.compile(r'<script[^>]*src="https?://[^"]*"[^>]*></script>')
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
CELL = re.compile(r'(<div class="jp-RenderedHTMLCommon jp-RenderedMarkdown.*?</div>)', re.DOTALL)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Link every full name such as `lo_theory.problem.predicates.nae` of the page of equations to its reference."""
    return NAME.sub(r"[`\1`][\1]", markdown) if page.file.src_uri == "docs/equations.md" else markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Drop scripts from the network, which notebooks name, and write their formulas as MathML."""
    output = SCRIPT.sub("", output)
    return (
        CELL.sub(lambda cell: FORMULA.sub(_mathml, cell[1]), output) if page.file.src_uri.endswith(".ipynb") else output
    )


def _mathml(found: re.Match[str]) -> str:
    display, inline = found.groups()
    return latex2mathml.converter.convert(html.unescape(display or inline), display="block" if display else "inline")
