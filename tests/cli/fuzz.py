"""Random command lines and configuration trees through the command line's main function, in this one process.

``python -m tests.cli.fuzz COUNT SEED`` prints how they ended and every fault, and ends with 1 if there was one: an
exception that escapes, a line that explains nothing, more than ten seconds, or more than a gigabyte. What would compute
for long is replaced by a refusal that says so: here it matters what happens until then.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from lo_theory.cli import _parser, main
from tests.figures import placeholders
from tests.lab.grids import tiny_grid
from tests.lab.tiny import tiny

_SECONDS, _MOST_GROWTH = 10.0, 2**29
_BEGAN = "began to compute"
_UNHELPFUL = re.compile(
    r"int too large|month must be|day is out|unhashable|has no attribute|object is not|not supported between|"
    r"index out of range|math domain|cannot convert|unpack|unexpected keyword|positional argument|recursion depth|"
    r"invalid literal|must be str|keys must be|codec can't|JSON serializable|Traceback|object at 0x"
)
_EXPERIMENTS = Path(__file__).parents[2] / "experiments"

_NUMBERS = [
    0,
    1,
    2,
    3,
    8,
    -1,
    1.5,
    0.5,
    -0.0,
    1e-300,
    1e300,
    10**9,
    2**31,
    2**62,
    2**63,
    2**64,
    10**12,
    10**25,
    10**400,
]
_NUMBERS += [float("nan"), float("inf"), -float("inf")]
_TEXTS = [
    "",
    " ",
    "--",
    "-",
    "a",
    "L",
    "L/8",
    "L/0",
    "uniform",
    "pattern(2)",
    "pattern(99999999999999999999)",
    "[/]x",
    "[b]",
]
_TEXTS += [
    "two_rates(nan,1)",
    "no",
    "0123",
    "1:30",
    "1e19",
    "\x00",
    "é\u202e",
    "a\nb",
    "x" * 5000,
    "..",
    "null",
    "~",
    "nae_sat",
]
_TEXTS += ["model", "exact", "margin", "cpu", "meta", "cuda:99", "abacus", "1/1", "3/2", "0/0", "9" * 30 + "/1", "-1/1"]
_YAML = [
    "[1, 2]",
    "[]",
    "{}",
    "[2020-01-01]",
    "2020-13-01",
    "2020-02-30",
    "[{1: 2, a: 3}]",
    "{a: {b: c}}",
    "&a [*a]",
    "!!python/x 1",
]
_YAML += [
    "[[[[[]]]]]",
    "? [a]\n: b",
    "!!set {a, b}",
    "!!binary aGk=",
    "<<: {a: 1}",
    "[1, true, null, x, 1.5]",
    "0o17",
    "1_000",
    ".nan",
]
_YAML += [
    "{a: 1, a: 2}",
    "[*missing]",
    "[" * 2000,
    "- a\n- b",
    "%YAML 3.0",
    "'",
    '"\\x"',
    "[seed, rows]",
    "{null: 1}",
    "{true: 1}",
]
_BOMB = "[&a [x,x,x,x,x,x,x,x,x]" + "".join(
    f", &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_YAML.append(_BOMB + "]")


_GOOD = {
    "preset": ["quick", "cpu", "exact"],
    "set": ["seed=3", "problem.N=8", "problem.P=12", "decoding.sequences=8", "recipe=tuned", "training.steps=10"],
    "axis": ["seed=[0,1]", "problem.P=[10,15]", "problem.N=[5,6]", "problem.seed,seed=[0,1]"],
    "pool": ["seed", "problem.seed"],
    "workers": ["1", "2"],
    "threads": ["1", "2"],
    "device": ["cpu", "auto"],
    "shard": ["1/1", "2/8"],
    "attempts": ["1"],
    "checkpoint_seconds": ["0", "1"],
    "rate": ["1", "300"],
    "ranks": ["1"],
    "run": ["tiny"],
    "row": ["0", "1"],
    "steps": ["L", "L/8", "3"],
    "hide": ["uniform", "pattern(2)"],
    "policies": ["vanilla", "margin"],
    "n": ["1", "3"],
    "seed": ["0", "1"],
    "output": ["a.npz"],
    "save_problem": ["p.npz"],
    "to": ["d.html"],
    "setting_N": ["3", "5", "8"],
    "setting_P": ["3", "12"],
    "setting_q": ["2", "3"],
    "setting_k": ["2", "3"],
    "setting_noise": ["0", "0.1"],
    "N": ["30"],
    "P": ["100", "5000"],
    "q": ["2", "3", "5"],
    "k": ["2", "3"],
    "noise": ["0", "0.1"],
    "observed": ["satisfied", "all", "0,1"],
    "revealed": ["0.1"],
    "messages": ["1e6"],
    "width": ["1"],
    "c": ["0.1"],
    "c_beta": ["0.2"],
}


class Hang(BaseException):
    """Raised by the alarm; no handler of errors takes it for one."""


class Chance:
    """Everything that is drawn, from one seed."""

    def __init__(self, seed: int, folder: Path, small: bool) -> None:
        self.random, self.folder, self.made = random.Random(seed), folder, 0
        self.documents = [tiny(), tiny(), tiny_grid(), tiny_grid()]
        for path in [] if small else sorted(_EXPERIMENTS.glob("*.yaml")):
            self.documents.append(yaml.safe_load(path.read_text()))
        self.commands = _commands()

    def value(self) -> Any:
        """A value for a YAML tree."""
        pick = self.random.random()
        if pick < 0.45:
            return self.random.choice(_NUMBERS)
        if pick < 0.75:
            return self.random.choice(_TEXTS)
        if pick < 0.85:
            return self.random.choice([None, True, False, [], {}, [[]], {"a": 1}, {1: 2, "a": 3}, [None]])
        return [self.value() for _ in range(self.random.randrange(3))]

    def text(self) -> str:
        """A word for a command line."""
        pick = self.random.random()
        if pick < 0.35:
            return str(self.random.choice(_NUMBERS))
        return self.random.choice(_TEXTS if pick < 0.65 else _YAML) if pick < 0.9 else str(self.path())

    def paths(self, tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Every place in a tree."""
        items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        for key, item in items:
            yield (*at, key)
            yield from self.paths(item, (*at, key))

    def tree(self, command: str) -> Any:
        """A configuration with one to three faults, or none; of the kind that the command takes most of the time."""
        key = {"sweep": "axes"}.get(command, "task")
        fitting = [one for one in self.documents if key in one or (key == "task" and "axes" not in one)]
        tree = copy.deepcopy(self.random.choice(fitting if self.random.random() < 0.9 else self.documents))
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 3])):
            places = list(self.paths(tree))
            *above, last = self.random.choice(places)
            node = tree
            for key in above:
                node = node[key]
            action = self.random.random()
            if action < 0.7:
                node[last] = self.value()
            elif action < 0.85:
                del node[last]
            elif isinstance(node, dict):
                node[self.random.choice([1, 2.5, None, True, "", "x", "rows", "axes", "recipe", "default_preset"])] = (
                    self.value()
                )
            if not list(self.paths(tree)):
                break
        return tree

    def config(self, command: str) -> Path:
        """A file with such a tree, or with text of another kind."""
        self.made += 1
        path = self.folder / f"config-{self.made % 50}.yaml"
        if self.random.random() < 0.9:
            path.write_text(yaml.safe_dump(self.tree(command), sort_keys=False, allow_unicode=True))
        else:
            key = self.random.choice(["experiment", "rows", "axes", "problem", "presets", "default_preset", "training"])
            path.write_text(f"experiment: tiny\n{key}: {self.random.choice(_YAML)}\n".replace("\x00", ""))
        return path

    def path(self) -> Path:
        """A file to read or write."""
        names = ("a.npz", "b.csv", "absent/c.npz", "d.html", "runs", "table.npy", "torn.npy", "link.npz", "table.npy/x")
        return self.random.choice([*(self.folder / name for name in names), Path(".")])  # never a device of the machine

    def assignment(self) -> str:
        """What --set and --axis take, more or less."""
        places = [".".join(map(str, place)) for place in self.paths(self.random.choice(self.documents[:4]))]
        place = self.random.choice(
            [*places, "", ".", "a.b", "rows.0", "rows.99.seed", "axes", "seed,problem.seed", "recipe"]
        )
        return f"{place}={self.text()}" if self.random.random() < 0.95 else self.text()

    def command(self) -> list[str]:
        """A command line."""
        words, parser = self.random.choice(self.commands)
        line = list(words)
        for action in parser._actions:
            if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)) or action.dest in (
                "debug",
                "dask",
            ):
                continue
            wanted = action.required or not action.option_strings or self.random.random() < 0.12
            if wanted and self.random.random() < 0.99:
                line += self.option(action, words[0])
        if words[0] in ("run", "sweep", "decode-view", "puzzle-view", "table", "figure", "report"):
            line += ["--out", str(self.folder / "runs")]
        return line

    def option(self, action: argparse.Action, command: str) -> list[str]:
        """An option or argument with values."""
        name = self.random.choice(action.option_strings) if action.option_strings else None
        if action.nargs == 0:
            return [] if name is None else [name]
        many = 1 if action.nargs is None else self.random.choice([0, 1, 1, 1, 1, 2, 2, 3])
        values = [self.argument(action, command) for _ in range(many)]
        if name is not None and name.startswith("--") and many == 1 and self.random.random() < 0.5:
            return [f"{name}={values[0]}"]
        return values if name is None else [name, *values]

    def argument(self, action: argparse.Action, command: str) -> str:
        """A value of an option: a good one half of the time, and of its kind most of the time."""
        pick = self.random.random()
        if pick < 0.1:
            return self.text()
        if pick < 0.6 and action.dest in _GOOD:
            return self.random.choice(_GOOD[action.dest])
        if action.dest in ("config", "file"):
            return str(self.config(command)) if action.metavar != "FILE.npy" else str(self.path())
        if action.dest == "run":
            return self.random.choice(
                ["tiny", "absent", str(self.folder / "runs"), str(self.config(command)), "../runs", self.text()]
            )
        if action.dest in ("set", "axis"):
            return self.assignment()
        if action.choices:
            return str(self.random.choice(list(action.choices)))
        if action.dest == "n":  # what is drawn is drawn: few, or what no memory holds
            return str(self.random.choice([0, 1, 3, -1, 10**15, 2**62, 2**64]))
        if action.type is int:
            return str(self.random.choice([0, 1, 2, 3, 3, 4, 5, 8, -1, 10**9, 2**31, 2**63, 2**64, 10**15, 10**400]))
        if action.type is float:
            return self.random.choice(["0", "0.1", "0.5", "1", "2", "-1", "nan", "inf", "1e-300", "1e300", "1e999"])
        return str(self.path()) if action.type is Path else self.text()


def _commands() -> list[tuple[list[str], argparse.ArgumentParser]]:
    """Every command that has options of its own, those on files more often."""
    found: list[tuple[list[str], argparse.ArgumentParser]] = []

    def walk(words: list[str], parser: argparse.ArgumentParser) -> None:
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for group in groups:
            for name, below in group.choices.items():
                walk([*words, name], below)
        if not groups and words[0] not in ("info", "compile"):
            found.extend([(words, parser)] * (10 if words[0] in ("run", "sweep") else 1))

    walk([], _parser())
    return found


def _refuse(*arguments: Any, **settings: Any) -> Any:
    raise ValueError(_BEGAN)


@contextlib.contextmanager
def _nothing_long() -> Iterator[None]:
    """In place of what computes: a refusal."""
    import lo_theory.cli.threshold_requests
    import lo_theory.lab.decode_view
    import lo_theory.lab.dry_run
    import lo_theory.lab.puzzle_view
    import lo_theory.lab.sweep.sweeps  # noqa: F401

    names = [
        "lab.execute.Work.begin",
        "lab.sweep.sweeps.run_jobs",
        "lab.dry_run.measure_rate",
    ]
    names += ["lab.task.write_figures"]
    names += [
        "lab.decode_view.record",
        "lab.puzzle_view.look",
        "cli.threshold_requests.expected_seconds",
        "cli.threshold_requests.find",
        "diffusion.pots_rates",
    ]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch(f"lo_theory.{name}", _refuse))
        yield


def _alarm(number: int, frame: object) -> None:
    raise Hang


def try_one(line: list[str]) -> tuple[str, str]:
    """How a command line ended, in a word, and the fault if it is one."""
    out, err = io.StringIO(), io.StringIO()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # of the processor: other programs' work is no hang
    signal.setitimer(signal.ITIMER_REAL, 10 * _SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(line)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
        if code not in (0, 2):
            return "fault", f"exit code {ending.code}"
    except Hang:
        return "fault", "hang\n" + "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
    except Exception:
        return "fault", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > _MOST_GROWTH:
        return "fault", f"took {grown / 2**20:.0f} MiB: {err.getvalue()[-300:]}"
    last = (err.getvalue().strip().splitlines() or [""])[-1]
    if code == 2 and (not last or _UNHELPFUL.search(last)):
        return "fault", f"a line that does not help: {last[:500]!r}"
    return ("began" if _BEGAN in last else "done" if code == 0 else "refused"), last


def fuzz(count: int, seed: int) -> tuple[Counter[str], list[tuple[list[str], str]]]:
    """Try ``count`` command lines; return how they ended, and those that are faults."""
    import numpy as np

    counts: Counter[str] = Counter()
    faults: list[tuple[list[str], str]] = []
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _alarm)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(name))
        stack.enter_context(placeholders())
        folder = Path(name)
        (folder / "good.yaml").write_text(yaml.safe_dump(tiny()))
        with contextlib.redirect_stdout(io.StringIO()):
            main(["run", "good.yaml", "--preset", "exact", "--out", str(folder / "runs"), "--quiet"])
        stack.enter_context(_nothing_long())
        (folder / "link.npz").symlink_to(folder / "a.npz")
        np.save(folder / "table.npy", np.array([[0, 1], [1, 0]]))
        (folder / "torn.npy").write_bytes((folder / "table.npy").read_bytes()[:100])
        chance = Chance(seed, folder, count < 1000)
        for document in chance.documents:  # what a good one loads and compiles is nobody's fault
            (folder / "good.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
            for command in ("run", "sweep", "decode-view"):
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    main([command, str(folder / "good.yaml"), "--out", str(folder / "runs")])
        for _ in range(count):
            line = chance.command()
            if any("\x00" in word for word in line):
                line = [word.replace("\x00", "") for word in line]  # no system passes one
            kept = [Path(word).read_text() for word in line[1:2] if word.endswith(".yaml") and Path(word).exists()]
            ending, said = try_one(line)
            counts[ending] += 1
            if ending == "fault":
                faults.append((line, said + ("\n" + kept[0][-1500:] if kept else "")))
    return counts, faults


def console() -> int:
    """Run the numbers given on the command line."""
    count, seed = (int(word) for word in sys.argv[1:3])
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + 8 * 2**30,) * 2)
    counts, faults = fuzz(count, seed)
    for line, said in faults:
        print("FAULT", line, "\n", said, "\n")
    print(json.dumps(dict(counts)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(console())
