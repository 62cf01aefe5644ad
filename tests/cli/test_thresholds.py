"""The command ``thresholds`` at tiny efforts: what it prints is what the library finds."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lo_theory.cli import main, thresholds
from lo_theory.cli.threshold_requests import make_request
from lo_theory.problem import flip, nae, xor
from lo_theory.rng import Key
from lo_theory.thresholds import (
    Effort,
    RowSpecification,
    Threshold,
    all_subsets_window,
    find_fold,
    find_transition,
    kesten_stigum,
    observations_window,
    planted_ensemble,
    slab_capacity,
    transition_columns,
)
from tests.cli.complaint import complaint

TINY = ["--messages", "1e5"]
EFFORT = Effort(1000, 1.25e4, 3.75e4, 5e4)


def show(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Standard output, its spaces made single, and standard error of ``lo-theory thresholds``."""
    assert main(["thresholds", *arguments]) == 0
    shown = capsys.readouterr()
    return " ".join(shown.out.split()), shown.err


def record(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one JSON object that ``lo-theory thresholds --json`` prints."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert main(["thresholds", *arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert isinstance(content, dict)
    return content


def test_a_discontinuous_transition(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = show(["xor", "--k", "3", *TINY], capsys)
    found = find_transition(planted_ensemble(xor(3)), Key(0).fold("xor q=2 k=3 observed=satisfied"), EFFORT)
    assert not found.continuous
    assert "Kesten-Stigum: infinite: from a weak start belief propagation learns nothing" in out
    in_c, in_units = re.findall(r"XOR k=3 satisfied (\d.*?) infinite", out)
    shown = [float(number) for number in re.findall(r"[\d.]+", f"{in_c} {in_units}")]
    both = (found.dynamic, found.condensation)
    expected = [number for unit in ("c", "density") for one in both for number in one.units[unit]]
    errors = np.repeat(expected[1::2], 2)
    assert np.allclose(shown, expected, rtol=0, atol=0.1 * errors)
    assert re.search(r"infinite 2\.45541 \([+-][\d.]+ %\) 2\.75381 \(", out)  # published
    assert "discontinuous transition" in out
    assert re.fullmatch(r"population dynamics, 1e\+05 factor messages: about \d+ s \(Ctrl-C to stop\)\n", err)


def test_a_continuous_transition(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = show(["xor", "--k", "2", "--messages", "3e6", "--N", "10"], capsys)
    assert re.search(r"XOR k=2 satisfied continuous: = KS no dip[^X]* 1 Mean degree", out)
    assert "XOR k=2 satisfied 0.5 0.5 0.5 1 1 1" in out
    assert re.search(r"continuous transition: dynamic = .* more than [\d.]+ % below Kesten-Stigum is excluded", out)
    assert "all ordered 2-subsets of N = 10 latents (P = 90): no mask rate is in the window" in out
    assert "is continuous" in out


def test_too_little_effort_to_decide_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = show(["xor", "--k", "2", *TINY, "--N", "10"], capsys)
    assert re.search(r"XOR k=2 satisfied not decided no dip over [\d.]+ % 1 Mean degree", out)
    assert re.search(r"not decided: .* one up to [\d.]+ % below is not excluded; take more --messages", out)
    assert "mask rate" not in out


def test_values_are_published_for_the_plain_law_only(capsys: pytest.CaptureFixture[str]) -> None:
    for more, published in (([], "Published: closed equations."), (["--noise", "0.01"], "Published: none")):
        out, _ = show(["xor", "--k", "3", *TINY, *more], capsys)
        assert published in out
    assert "XOR k=3, noise 0.01 satisfied" in out
    out, _ = show(["xor", "--k", "3", *TINY, "--observed", "0"], capsys)
    assert "XOR k=3 values 0" in out
    assert "Published: none" in out


@pytest.mark.parametrize("k", [2, 3])
def test_the_record_is_the_row_of_the_table(k: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = record(["xor", "--k", str(k), *TINY, "--seed", "3", "--threads", "2"], capsys)
    specification = RowSpecification("xor", 2, k)
    key = Key(3).fold(specification.label)  # the address under which the experiments compute it
    row = transition_columns(find_transition(specification.ensemble(), key, EFFORT))
    shared = row.keys() & found.keys()
    assert {"kesten_stigum_c", "dynamic_density_error", "condensation_neighbours", "continuous"} <= shared
    assert all(found[name] == row[name] for name in shared)
    assert found["kesten_stigum_infinite"] is (k == 3)
    assert (found["kesten_stigum_c"] is None) is (k == 3)
    assert found["messages"] == 1e5
    assert found["window"] is None
    assert found["fold"] is None


def test_noise_and_what_is_observed_reach_the_ensemble(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["nae", "--q", "3", "--k", "3", "--closed-form", "--noise", "0.1", "--observed"]
    for observed, values in (("satisfied", "satisfied"), ("all", "all"), ("0", [0])):
        ensemble = planted_ensemble(nae(3, 3), observed=values, channel=flip(0.1))
        found = record([*arguments, observed], capsys)
        assert found["kesten_stigum_c"] == kesten_stigum(ensemble).value
        assert found["revealed_observations"] == ensemble.revealed
        assert found["noise"] == 0.1
        assert found["observed"] == values
        assert found["condensation_c"] is None
        assert found["seed"] == 0


def test_closed_form_computes_nothing_else(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "_run_population", None)
    out, err = show(["nae", "--q", "3", "--k", "3", "--closed-form"], capsys)
    assert out == (
        "NAE q=3 k=3, revealed: satisfied (0.8889 of all observations) "
        "Kesten-Stigum: c = 32, density = 10.6667, neighbours = 64"
    )
    assert err == ""


def test_kesten_stigum_is_shown_before_the_long_part(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def long_part(request: object) -> object:
        seen.append(capfd.readouterr().out)
        raise ValueError("enough")

    monkeypatch.setattr(thresholds, "_run_population", long_part)
    assert main(["thresholds", "nae", "--q", "3", "--k", "3"]) == 2
    assert "neighbours = 64" in seen[0]


def test_windows_are_those_of_the_thresholds(capsys: pytest.CaptureFixture[str]) -> None:
    critical = kesten_stigum(planted_ensemble(nae(3, 3)))
    condensation = Threshold(26.0, 3, 0.1)
    found = {"condensation": condensation, "kesten_stigum": critical}
    parser_options = {"law": "nae", "q": 3, "k": 3, "noise": 0.0, "observed": "satisfied", "messages": 1e5}
    parser_options |= {"threads": 1, "seed": 0, "revealed": None, "closed_form": False}
    for P in (None, 2000, 100):
        request = make_request(Namespace(**parser_options, N=30, P=P))
        window = request.window(condensation)
        if P is None:
            assert window == all_subsets_window(request.ensemble, 30, **found)
        else:
            assert window == observations_window(request.ensemble, 30, P, **found)
        assert window.empty is (P == 100)
    out, _ = show(["xor", "--k", "3", *TINY, "--N", "30"], capsys)
    assert "all ordered 3-subsets of N = 30 latents (P = 24360): hard for mask rates 0 to 0.997" in out
    empty = record(["xor", "--k", "3", *TINY, "--N", "30", "--P", "40"], capsys)["window"]
    assert empty["empty"]
    assert empty["lowest"] is empty["highest"] is None
    assert empty["all_latents_masked"] == [None, None]
    assert "the degree is 2, below condensation" in empty["reason"]


def test_side_information(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["xor", "--k", "3", *TINY, "--revealed"]
    out, _ = show([*arguments, "0.02"], capsys)
    assert "with a share 0.02 of the latents revealed: the hard phase survives" in out
    in_c, in_units = re.findall(r"XOR k=3 satisfied 2 % (.*?) (?:Mean|with a share)", out)
    ends = re.findall(r"([\d.]+) ±", in_c)
    assert len(ends) == 3
    units = [scale * float(end) for scale in (1 / 3, 2) for end in ends]
    assert [float(end) for end in re.findall(r"([\d.]+) ±", in_units)] == pytest.approx(units, rel=0.01)
    fold = record([*arguments, "0.02"], capsys)["fold"]
    key = Key(0).fold("xor q=2 k=3 observed=satisfied")
    expected = find_fold(planted_ensemble(xor(3)), 0.02, key, EFFORT)
    assert fold["survives"]
    assert expected.spinodal is not None
    assert fold["end_of_uninformed_c"] == expected.spinodal.value
    out, _ = show([*arguments, "0.3"], capsys)
    assert re.search(r"XOR k=3 satisfied 30 % no fold (none over [\d.]+ % of c )?Mean degree", out)
    assert "Side information, as density" not in out
    assert re.search(r"no fold is resolved, so no hard phase; one wider than [\d.]+ % of c is excluded", out)


def test_windows_that_are_conjectured(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = show(["sparse-parity", "--N", "100", "--P", "60000", "--k", "6"], capsys)
    assert out.startswith("hard for mask rates 0.99 to 0.995 (Proposition B.2, conjectural")
    assert err == ""
    window = record(["sparse-parity", "--N", "100", "--P", "60000", "--k", "4"], capsys)["window"]
    assert window["empty"]
    assert "which no P meets at k = 4" in window["reason"]
    slab = ["slab", "--N", "30", "--P", "5000", "--width", "1", "--c", "0.1"]
    out, _ = show(slab, capsys)
    assert "Proposition B.5, conjectural" in out
    assert "c_beta is at most 1.81588" in out
    assert "c_beta was not given" in out
    found = record([*slab, "--c-beta", "0.5"], capsys)
    assert found["window"]["lowest"] == 1 - 0.5 * 30 / 10000
    assert found["c_beta_upper_bound"] == slab_capacity(1)
    assert len(found["notes"]) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("sat --k 3", r"SAT k=3 breaks Assumption B\.11"),
        ("nae --q 3 --k 1", r"at least 2 latents, got k = 1"),
        ("nae --q 1 --k 3", r"at least 2 values, got q = 1"),
        ("nae --q 33 --k 4", r"33\*\*4 states is over the limit of 1048576: take a smaller q or k"),
        ("nae --q 1000000000 --k 1000000000", r"q = 1000000000 is over the limit of 40"),
        ("xor --k 21", r"2\*\*21 states is over the limit"),
        ("nae --q 3 --k 3 --N 0", r"--N must lie between 1 and 1e\+15, got 0"),
        ("nae --q 3 --k 3 --N 2", r"need N >= 3 latents, got 2"),
        ("nae --q 3 --k 3 --P 5", r"--P 5 needs the number of latents: add --N"),
        ("nae --q 3 --k 3 --N 30 --P -1", r"--P must lie between 1 and 1e\+15, got -1"),
        ("nae --q 3 --k 3 --N 1000000000000000000000", r"--N must be an integer of 64 bits, got one of 22 digits"),
        ("nae --q 3 --k 3 --revealed 0", r"--revealed is a share of latents between 0 and 1, got 0"),
        ("nae --q 3 --k 3 --revealed 1", r"got 1\.0"),
        ("nae --q 3 --k 3 --revealed nan", r"got nan"),
        ("nae --q 3 --k 3 --noise 2", r"--noise is a flip rate between 0 and 1, got 2"),
        ("nae --q 3 --k 3 --noise 0.5", r"nothing can be known at any degree .* take a noise other than 0\.5"),
        ("nae --q 3 --k 3 --observed none", r"--observed is satisfied, all, or values such as 0,2; got 'none'"),
        ("nae --q 3 --k 3 --observed 0,5", r"different values of 0\.\.1, got \(0, 5\)"),
        ("nae --q 3 --k 3 --messages 0", r"--messages is a number above 0 and at most 1e15, got 0"),
        ("nae --q 3 --k 3 --messages nan", r"got nan"),
        ("nae --q 3 --k 3 --threads 0", r"--threads must be a whole number from 1 to 1024, got 0"),
        ("nae --q 3 --k 3 --N 30 --closed-form", r"--N needs population dynamics: leave --closed-form out"),
        ("nae --q 2 --k 9", r"Kesten-Stigum is at c = 8128\.13, .*--closed-form"),
        ("xor --k 3 --noise 0.49", r"look up to c = [0-9.]+ and ends at 10000: lower the noise"),
        ("sparse-parity --N 0 --P 5 --k 3", r"--N must lie between 1"),
        ("sparse-parity --N 5 --P 5 --k 6", r"2 to N = 5, got 6"),
        ("sparse-parity --N 1000000000 --P 5 --k 60000", r"beyond floating point: take a smaller --k"),
        ("slab --N 30 --P 5000 --width 0 --c 0.1", r"--width lies between 1e-9 and 8, .* got 0"),
        ("slab --N 30 --P 5000 --width inf --c 0.1", r"got inf"),
        ("slab --N 30 --P 5000 --width 1 --c 0.1 --c-beta 9", r"at most 1\.81588, the capacity .*, got 9"),
        ("slab --N 30 --P 5000 --width 1 --c nan", r"--c lies between 0 and c_beta = 1\.81588, got nan"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(["thresholds", *arguments.split()], capsys)
    assert re.search(expected, line), line


def test_failing_population_dynamics_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("array of sample points is empty")

    monkeypatch.setattr("lo_theory.cli.threshold_requests.find_transition", fail)
    assert main(["thresholds", "xor", "--k", "3", *TINY, "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(r"of XOR k=3 \(array .* empty\): more --messages may help; --closed-form", shown.err)


def test_errors_and_closed_forms_load_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.eye(3))
    for arguments in (["sat", "--k", "3"], ["table", "absent.npy"], ["table", "table.npy", "--closed-form"]):
        code = (
            "import sys; from lo_theory.cli import main\n"
            f"main({['thresholds', *arguments]!r})\n"
            "print([name for name in ('torch', 'matplotlib', 'pandas') if name in sys.modules])"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert result.stdout.endswith("[]\n")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, here and in processes started from here: a shell's background job would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_does_not_wait_for_the_work() -> None:
    release, finished = threading.Event(), threading.Event()

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            release.wait(60)
        finally:
            finished.set()

    with pytest.raises(KeyboardInterrupt):
        thresholds._interruptible(work)
    assert not finished.is_set()
    release.set()
    assert finished.wait(60)


@pytest.mark.usefixtures("ctrl_c")
def test_interrupted_by_ctrl_c_it_ends_with_130() -> None:
    command = [sys.executable, "-m", "lo_theory.cli", "thresholds", "xor", "--k", "12", "--messages", "1e12"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        announcement = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()  # else this would wait for days
    assert re.search(r"about \d+ (hours|days)", announcement)
    assert process.returncode == 130
    assert err == "interrupted\n"


def test_expected_time_grows_with_the_messages() -> None:
    from lo_theory.cli.threshold_requests import expected_seconds

    options = {"law": "xor", "k": 3, "noise": 0.0, "observed": "satisfied", "threads": 1, "seed": 0}
    options |= {"revealed": None, "closed_form": False, "N": None, "P": None}
    few, many = (make_request(Namespace(**options, messages=messages)) for messages in (1e6, 1e12))
    assert math.isfinite(expected_seconds(few))
    assert expected_seconds(many) > 1000 * expected_seconds(few) > 0
