"""Settings for the whole suite.

Hypothesis is repeatable, and the ledger of statistical comparisons is held over all processes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lo_theory.testing import current_test, totals
from tests.budget import LEDGER
from tests.figures import placeholders, rendered

settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A job in the background of a script ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_WORKERS = pytest.StashKey[list[Any]]()


@pytest.fixture(autouse=True)
def _ledger_of_this_test() -> None:
    """Let a test that runs again spend its share again."""
    LEDGER.begin(current_test())


@pytest.fixture(autouse=True, scope="session")
def _placeholders() -> Iterator[None]:
    """Render no figure in this process; a fixture for many tests that looks at figures uses ``rendered``."""
    with placeholders():
        yield


@pytest.fixture(autouse=True)
def _renders(request: pytest.FixtureRequest) -> Iterator[None]:
    """Render figures in a test under the mark ``renders``."""
    if request.node.get_closest_marker("renders") is None:
        yield
    else:
        with rendered():
            yield


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_WORKERS] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Collect the ledger of a worker that has finished."""
    node.config.stash[_WORKERS].append(getattr(node, "workeroutput", {}).get("ledger", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the ledger to the controller, or in the controller hold the sums against the registry."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ledger"] = LEDGER.spent
        return
    lines = LEDGER.overspent(totals([LEDGER.spent, *session.config.stash[_WORKERS]]))
    if lines:
        session.config.get_terminal_writer().line("\n" + "\n".join(lines), red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the largest errors that passing tests have measured: a bound that holds says little without them."""
    said = [text for report in terminalreporter.getreports("passed") for _, text in report.sections]
    lines = sorted({line for text in said for line in text.splitlines() if "largest error" in line})
    if lines:
        terminalreporter.section("largest errors measured")
        for line in lines:
            terminalreporter.line(line)
