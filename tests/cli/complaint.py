"""What a failing command says."""

from __future__ import annotations

import pytest

from lo_theory.cli import main


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error that explains a failure."""
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    return error[0]
