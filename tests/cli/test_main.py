from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lo_theory.cli import main


def test_importing_the_package_or_asking_for_help_loads_nothing_heavy() -> None:
    heavy = "[name for name in ('torch', 'matplotlib', 'numba', 'scipy', 'pandas', 'rich') if name in sys.modules]"
    code = f"import sys, lo_theory; first = {heavy}; dir(lo_theory); import lo_theory.cli; print(first, {heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[] []\n"
    for command in ("run", "thresholds", "thresholds nae", "thresholds table", "thresholds slab"):
        code = (
            "import sys; from lo_theory.cli import main\n"
            f"try:\n    main([*{command.split()}, '--help'])\nexcept SystemExit:\n    print({heavy})"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.endswith("[]\n")


def test_it_runs_as_a_module_and_as_a_script() -> None:
    for program in (
        [sys.executable, "-m", "lo_theory"],
        [sys.executable, "-m", "lo_theory.cli"],
        [str(Path(sys.executable).with_name("lo-theory"))],
    ):
        result = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True)
        assert "usage: lo-theory" in result.stdout
        assert result.stderr == ""


def test_every_public_name_is_there() -> None:
    import lo_theory

    assert set(lo_theory.__all__) <= set(dir(lo_theory))
    for name in lo_theory.__all__:
        assert getattr(lo_theory, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lo_theory.nothing  # noqa: B018


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["run", str(tmp_path / "absent.yaml"), "--debug"])


def test_info_names_versions_and_processors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^torch +\d", printed, re.MULTILINE)
    assert re.search(r"^processors +\d", printed, re.MULTILINE)


def test_an_option_whose_value_is_two_dashes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["run", "x.yaml", "--preset=--"])
    assert ending.value.code == 2
    assert "--preset=--: an option cannot have the value --" in capsys.readouterr().err


@pytest.mark.parametrize("streams", [">&-", ">/dev/full", ">&- 2>&-", "<&- >&- 2>/dev/full"])
def test_closed_and_full_streams_are_no_traceback(streams: str, tmp_path: Path) -> None:
    command = f"cd {tmp_path}; {sys.executable} -m lo_theory sample nae-sat --N 5 --P 5 -n 3 -o a.npz {streams}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    assert result.returncode == (2 if ">/dev/full" in streams.split()[0] else 0), result.stderr
    assert (tmp_path / "a.npz").read_bytes()[:2] == b"PK"  # of no stream's text


_INTERRUPTED = """
import signal, sys, time
import lo_theory.cli as cli

class Finaliser:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # Python drops what is raised here

def work():
    {work}

def main(arguments=None):
    try:
        work()
    except KeyboardInterrupt:
        print("in order", flush=True)
        {after}
        return 130
    return 0

cli.main = main
cli.console()
"""


@pytest.mark.parametrize(
    ("work", "after", "expected"),
    [
        ("signal.raise_signal(signal.SIGINT)", "pass", "in order"),
        ("Finaliser(); time.sleep(30)", "pass", "in order"),  # dropped, and raised again
        ("signal.raise_signal(signal.SIGINT)", "signal.raise_signal(signal.SIGINT); print('not here')", "in order"),
    ],
)
def test_ctrl_c_stops_in_order_and_the_second_at_once(work: str, after: str, expected: str) -> None:
    code = _INTERRUPTED.format(work=work, after=after)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=25)
    assert result.returncode == 130
    assert result.stdout.split("\n")[:-1] == [expected]
    assert "Traceback" not in result.stderr
    assert "ignored" not in result.stderr


def test_a_command_under_way_ends_at_ctrl_c(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lo_theory", "thresholds", "nae", "--q", "3", "--k", "3"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        assert "population dynamics" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.strip() == "interrupted"
