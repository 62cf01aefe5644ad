"""The rules of the house, held by walking the source.

Direction of imports, what importing loads, docstrings, sizes, and what is forbidden.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lo_theory

ROOT = Path(lo_theory.__file__).parent
FLOORS = ("jit", "rng", "problem", "posterior", "thresholds", "diffusion", "testing", "neural", "lab", "cli")
FILES = sorted(ROOT.rglob("*.py"))
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(ROOT)], "lo_theory.") if not module.name.endswith("__main__")
)

LARGEST_FILE, LARGEST_FUNCTION, LARGEST_SIGNATURE = 500, 60, 7
EXCEPTIONS: dict[str, str] = {
    # "file.py" or "file.py:function": why it is larger
    "diffusion/costs.py:decode_cost": "what decode takes, and beside it the problem and the exact posterior",
    "lab/kinds.py": "every kind of row once: a table that grows with what is measured",
    **{
        f"lab/experiments/{name}.py": "an experiment is one module: settings, units of work, tables, figures"
        for name in ("figure2", "hardness", "orders")
    },
}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def floor(module: str) -> int | None:
    """Floor of a module of the package; None for its front doors ``lo_theory`` and ``python -m lo_theory``."""
    parts = module.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 and parts[1] != "__main__" else None


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that a file imports anywhere, by absolute name."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{home}.{alias.name}" if home == "lo_theory" else home, node) for alias in node.names)


def rooms_above(path: Path) -> list[str]:
    here = floor(module_name(path))
    if here is None:
        return []
    wrong = []
    for name, _ in imports(path):
        if name == "lo_theory" or name.startswith("lo_theory."):
            there = floor(name) if name.split(".")[-1] != "lo_theory" and name.split(".")[1] in FLOORS else len(FLOORS)
            if there is None or there > here:
                wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_imports_only_from_its_own_floor_and_those_before(path):
    assert rooms_above(path) == []


def test_every_file_stands_on_a_floor():
    assert {module_name(path).split(".")[1] for path in FILES if path.parent != ROOT or path.name == "rng.py"} <= set(
        FLOORS
    )


def test_an_import_from_a_floor_above_is_seen(monkeypatch):
    sources = [
        "from lo_theory.posterior import exact",
        "import lo_theory.neural.model",
        "def f():\n    from ..lab import runs",
        "from lo_theory import diffusion",
        "from .. import cli",
        "from lo_theory import nae_sat",  # the front door leads to every floor
    ]
    for source in sources:
        monkeypatch.setattr(sys.modules[__name__], "tree", lambda path, source=source: ast.parse(source))
        assert rooms_above(ROOT / "problem" / "families.py"), source
    for source in [
        "from lo_theory.rng import Key",
        "from .layout import MASK",
        "from lo_theory import rng",
        "import numpy",
    ]:
        monkeypatch.setattr(sys.modules[__name__], "tree", lambda path, source=source: ast.parse(source))
        assert rooms_above(ROOT / "problem" / "families.py") == [], source


# --- no circles -------------------------------------------------------------------------------------------------------------------


BY_NAME = {module_name(path): path for path in FILES}


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below that can run, in functions too; what stands under TYPE_CHECKING is for the checker of types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for branch in child.orelse:
                yield branch
                yield from executed(branch)
        else:
            yield child
            yield from executed(child)


@functools.cache
def needs(name: str, source: str) -> frozenset[str]:
    """The files of the package that a file imports when it is loaded or later; packages above them do not count."""
    package = name.split(".") if BY_NAME[name].name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{home}.{alias.name}" for alias in node.names}
            found |= (names & BY_NAME.keys()) | ({home} if names - BY_NAME.keys() else set())
    return frozenset(found & BY_NAME.keys()) - {name}


def circle(**sources: str) -> list[str]:
    """Files that import each other round about, the first of them named again at the end; empty where none do.

    ``sources``, by names of modules, stand in place of what the files hold.
    """
    read = {name: path.read_text() for name, path in BY_NAME.items()} | sources
    try:
        graphlib.TopologicalSorter({name: needs(name, source) for name, source in read.items()}).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_import_each_other_directly_or_round_about():
    assert circle() == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("from lo_theory.lab.units import Unit", "import lo_theory.lab.rows"),
        ("from lo_theory.lab import units", "def f():\n    from .rows import Row"),
        ("from . import units", "if x:\n    pass\nelse:\n    from lo_theory.lab import rows"),
        (
            "def f():\n    import lo_theory.lab.units",
            "if TYPE_CHECKING:\n    import x\nelse:\n    from .rows import Row",
        ),
    ],
)
def test_a_circle_is_seen(one, other):
    sources = {"lo_theory.lab.rows": one, "lo_theory.lab.units": other}
    assert set(circle(**sources)) == {"lo_theory.lab.rows", "lo_theory.lab.units"}
    for_types = "if TYPE_CHECKING:\n    from lo_theory.lab.rows import Row"
    assert circle(**sources | {"lo_theory.lab.units": for_types}) == []


# --- what importing loads -------------------------------------------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in sys.modules after ``statement`` in a fresh interpreter."""
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(shown.stdout.splitlines()[-1]))


def test_importing_the_package_is_light():
    assert not loaded_by("import lo_theory; dir(lo_theory)") & {"torch", "matplotlib", "pandas", "numba"}


def test_only_neural_loads_torch():
    below = [f"lo_theory.{room}" for room in ("rng", "problem", "posterior", "thresholds", "diffusion", "testing")]
    there = [name for name in below if importlib.util.find_spec(name)]
    assert not loaded_by("import " + ", ".join(there)) & {"torch", "matplotlib", "pandas"}
    assert "torch" in loaded_by("import lo_theory.neural")


@pytest.mark.parametrize(
    "path", [path for path in FILES if (floor(module_name(path)) or 0) < FLOORS.index("neural")], ids=short
)
def test_torch_is_not_named_below_neural(path):
    assert "torch" not in {name.split(".")[0] for name, _ in imports(path)}


@pytest.mark.parametrize("room", ["lab", "cli"])
def test_torch_and_matplotlib_are_loaded_above_only_when_used(room):
    assert importlib.util.find_spec(f"lo_theory.{room}")
    assert not loaded_by(f"import lo_theory.{room}") & {"torch", "matplotlib", "pandas"}


def test_the_front_door_opens_every_name_it_lists():
    assert sorted(set(lo_theory.__all__)) == sorted(lo_theory.__all__)
    for name in lo_theory.__all__:
        assert getattr(lo_theory, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lo_theory.nonsense  # noqa: B018


# --- docstrings -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_says_what_it_is_for(path):
    assert ast.get_docstring(tree(path))


def undocumented(name: str, value: object) -> list[str]:
    """Public functions, classes and methods without a docstring of their own."""
    if not (inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "py_func")):
        return []
    missing = [] if (getattr(value, "py_func", value).__doc__ or "").strip() else [name]
    if inspect.isclass(value):
        if (value.__doc__ or "").startswith(f"{value.__name__}("):  # what dataclass writes by itself
            missing.append(name)
        for member, content in vars(value).items():
            function = getattr(content, "__func__", getattr(content, "fget", getattr(content, "func", content)))
            if not member.startswith("_") and inspect.isfunction(function):
                missing += undocumented(f"{name}.{member}", function)
    return missing


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_exists_and_is_documented(module):
    content = importlib.import_module(module)
    public = [
        name for name, value in vars(content).items() if name[0] != "_" and getattr(value, "__module__", "") == module
    ]
    names = getattr(content, "__all__", public)
    assert len(set(names)) == len(names)
    assert [line for name in names for line in undocumented(name, getattr(content, name))] == []


# --- sizes ------------------------------------------------------------------------------------------------------------------------


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def too_large(path: Path) -> list[str]:
    """Files, functions and signatures over the limits. Kernels take arrays and scalars only, so any number of them."""
    lines = len(path.read_text().splitlines())
    found = [f"{short(path)}: {lines} lines"] if lines > LARGEST_FILE and short(path) not in EXCEPTIONS else []
    for function in functions_of(path):
        name = f"{short(path)}:{function.name}"
        length = (function.end_lineno or 0) - function.lineno + 1
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        count = sum(argument.arg not in ("self", "cls") for argument in given)
        if length > LARGEST_FUNCTION and name not in EXCEPTIONS:
            found.append(f"{name}: {length} lines")
        if count > LARGEST_SIGNATURE and name not in EXCEPTIONS and not path.name.endswith("_kernels.py"):
            found.append(f"{name}: {count} arguments")
    return found


@pytest.mark.parametrize("path", FILES, ids=short)
def test_files_functions_and_signatures_are_small(path):
    assert too_large(path) == []


def test_exceptions_are_still_needed_and_say_why(monkeypatch):
    granted = dict(EXCEPTIONS)
    monkeypatch.setattr(sys.modules[__name__], "EXCEPTIONS", {})
    found = {line.rsplit(": ", 1)[0] for path in FILES for line in too_large(path)}
    assert set(granted) <= found
    assert all(len(reason) > 20 for reason in granted.values())


# --- what is not written here -----------------------------------------------------------------------------------------------------

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"torch.load", "yaml.unsafe_load", "eval", "exec", "np.random.seed", "random.seed"}
FORBIDDEN_LOADERS = {"yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"}
FORBIDDEN_WORDS = ("TODO", "FIXME", "XXX", "NotImplementedError")


def forbidden(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN_LOADERS:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Global):
            found.append(f"line {node.lineno}: global")
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"line {node.lineno}: import {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS or (
                called == "yaml.load" and "Loader" not in {word.arg for word in node.keywords}
            ):
                found.append(f"line {node.lineno}: {called}")
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True) is not False:
                    found.append(f"line {node.lineno}: allow_pickle")
    return found + [word for word in FORBIDDEN_WORDS if word in source]


@pytest.mark.parametrize("path", FILES, ids=short)
def test_nothing_forbidden_is_written(path):
    assert forbidden(path.read_text()) == []


def test_masks_are_drawn_where_they_are_checked():
    """A law answers ``sample(key, tokens, layout)``, and that is called by ``draw_masks`` alone."""
    callers = [
        short(path)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "sample" and len(node.args) == 3
    ]
    assert callers == ["diffusion/masks.py"]


@pytest.mark.parametrize(
    "source",
    [
        "assert x > 0",
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "def f():\n    global state",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "class Mine(yaml.Loader): pass",
        "eval(text)",
        "raise NotImplementedError",
    ],
)
def test_what_is_forbidden_is_seen(source):
    assert forbidden(source)
    assert forbidden("np.load(path, allow_pickle=False)\nyaml.load(text, Loader=Mine)") == []
