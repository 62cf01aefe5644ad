"""Files of a run that were damaged: refused by name, or harmless; nothing damaged is shown or gone on from."""

from __future__ import annotations

import contextlib
import io
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lo_theory.cli import main
from lo_theory.lab.schema import dump_yaml
from tests.lab.tiny import tiny

NAMES = ("rows.jsonl", "started.json", "config.yaml", "done.json")


def flip(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def delete(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    begin = chance.randrange(len(lines))
    return b"".join(lines[:begin] + lines[begin + chance.choice([1, 1, 1, 2, 3, 5]) :])


def repeat(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    begin = chance.randrange(len(lines))
    end = begin + chance.choice([1, 1, 1, 2, 3, 5])
    return b"".join(lines[:end] + lines[begin:])


def exchange(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def windows(content: bytes, chance: random.Random) -> bytes:
    return content.replace(b"\n", b"\r\n")


def digit(content: bytes, chance: random.Random) -> bytes:
    places = [match.start() for match in re.finditer(rb"[0-9]", content)]
    place = chance.choice(places)
    return content[:place] + str(chance.randrange(10)).encode() + content[place + 1 :]


def zeros(content: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(content))
    return content[:begin] + bytes(min(64, len(content) - begin)) + content[begin + 64 :]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip, flip, cut, delete, repeat, exchange, digit, zeros, windows),
)


@pytest.fixture(scope="module", autouse=True)
def plain_figures() -> Iterator[None]:
    """Figures are not what is tried here, and take longest."""

    def write(folder: Path, *arguments: object) -> list[Path]:
        from PIL import Image

        Image.new("RGB", (2, 2)).save(folder / "figure.png")
        (folder / "figure.pdf").write_bytes(b"")
        return [folder / "figure.png", folder / "figure.pdf"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lo_theory.lab.task.write_figures", write)
        patch.setattr("lo_theory.lab.report.write_figures", write)
        yield


class Tried:
    """A finished run, and the same with two of its units and no done.json."""

    def __init__(self, root: Path) -> None:
        self.config, self.out = root / "tiny.yaml", root / "out"
        settings = tiny() | {"default_preset": "exact", "evaluation": {"sequences": 8, "laws": ["uniform"]}}
        settings["decoding"] = {"sequences": 8, "policies": ["vanilla", "margin"], "denoisers": ["exact"]}
        self.config.write_text(dump_yaml(settings))
        assert self.say("run")[0] == 0
        self.folder = next((self.out / "tiny").iterdir())
        self.whole = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self.begun = {name: self.whole[name] for name in ("started.json", "config.yaml", "lock", "log.jsonl")}
        self.begun["rows.jsonl"] = b"\n\n".join(self.whole["rows.jsonl"].split(b"\n\n")[:2]) + b"\n\n"
        assert self.whole["rows.jsonl"].count(b"\n\n") > 3
        self.said = {name: self.say(name)[1] for name in ("run", "table", "report", "figure")}

    def say(self, name: str) -> tuple[int, str, str]:
        """Exit code of a command, and what it says on both streams."""
        files = {"run": [str(self.config), "--quiet", "--threads", "1", "--workers", "1"]}
        with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()) as error:
            code = main([name, *files.get(name, ["tiny"]), "--out", str(self.out)])
        seconds = re.sub(r"\d+ seconds", "seconds", shown.getvalue())
        return code, seconds, error.getvalue()

    def put(self, files: dict[str, bytes]) -> None:
        """Make the folder hold these files and no other."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)

    def check_finished(self, name: str, content: bytes) -> str:
        """Damage a file of the finished run; every command says what it said, or names the file."""
        endings = set()
        for command in self.said:
            self.put({**self.whole, name: content})
            code, shown, error = self.say(command)
            if code:
                assert (code, shown) == (2, "")
                assert name in error, error
                assert len(error.splitlines()) == 1
                assert "Traceback" not in error
            else:
                assert shown == self.said[command]
            endings.add("refused" if code else "harmless")
        return endings.pop() if len(endings) == 1 else "refused where it is read"

    def check_begun(self, name: str, content: bytes) -> str:
        """Damage a file of the run under way; the command ends in the same rows, or names the file and then does."""
        self.put({**self.begun, name: content})
        code, shown, error = self.say("run")
        ending = "refused" if code else "harmless"
        if code:
            assert (code, shown) == (2, "")
            assert name in error, error
            if name == "rows.jsonl":
                assert any(path.read_bytes() == content for path in self.folder.glob("rows.jsonl.damaged*"))
            else:
                assert ": remove it" in error
                (self.folder / name).unlink()
            code, shown, error = self.say("run")
        assert code == 0, error
        assert shown == self.said["run"]
        for kept in ("rows.jsonl", "table.csv", "table.md", "config.yaml"):
            assert (self.folder / kept).read_bytes() == self.whole[kept], kept
        return ending


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return Tried(tmp_path_factory.mktemp("tried"))


def campaign(tried: Tried, count: int, seed: int) -> dict[tuple[str, str, str], int]:
    """Damage files ``count`` times; how often what was refused, and what was harmless."""
    chance, counts = random.Random(seed), {}
    cases = [
        (name, state)
        for name in NAMES
        for state in ("finished", "under way")
        if (name, state) != ("done.json", "under way")
    ]
    weights = [4 if name == "rows.jsonl" else 1 for name, _ in cases]
    done = 0
    while done < count:
        name, state = chance.choices(cases, weights)[0]
        before = (tried.whole if state == "finished" else tried.begun)[name]
        content = chance.choice(DAMAGES)(before, chance)
        if content == before:
            continue
        check = tried.check_finished if state == "finished" else tried.check_begun
        place = (name, state, check(name, content))
        counts[place] = counts.get(place, 0) + 1
        done += 1
    return counts


def test_damaged_files_are_refused_by_name_or_harmless(tried: Tried) -> None:
    counts = campaign(tried, 20, 1)
    assert sum(counts.values()) == 20
    assert any(ending.startswith("refused") for _, _, ending in counts)


@pytest.mark.soak
def test_five_hundred_damaged_files_are_refused_by_name_or_harmless(tried: Tried) -> None:
    counts = campaign(tried, 500, 2)
    for place, number in sorted(counts.items()):
        print(number, *place)
    assert counts.get(("rows.jsonl", "finished", "harmless"), 0) == 0
    assert counts.get(("config.yaml", "finished", "harmless"), 0) == 0
