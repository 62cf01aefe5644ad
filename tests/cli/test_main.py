from __future__ import annotations

import re
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
    for program in ([sys.executable, "-m", "lo_theory.cli"], [str(Path(sys.executable).with_name("lo-theory"))]):
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
