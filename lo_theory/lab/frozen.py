"""Frozen problems: five named problems with sequences, masks and exact answers, written to files that need no package.

Every array comes from addresses below the problem's own seed, so the same version of the package writes the same
problem, sequences and masks on every machine; ``Frozen.version`` is a digest of these integers and of the format. The
exact numbers beside them (marginals, evidence, entropies) agree to rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.diffusion import InformationCurve, Uniform, information_curve
from lo_theory.diffusion.contexts import Contexts, draw_contexts
from lo_theory.lab.problems import NaeSat, SparseParity
from lo_theory.posterior import ExactPosterior
from lo_theory.problem.storage import write_arrays, write_atomically
from lo_theory.rng import Key
from lo_theory.thresholds import kesten_stigum, planted_ensemble

if TYPE_CHECKING:
    from lo_theory.problem import LODistribution


FORMAT = 1
"""Of the files: names, kinds and meaning of the arrays."""
_CURVE = 400  # sequences of the information curve


@dataclass(frozen=True)
class FrozenProblem:
    """A problem with its place among the phases, in words and as the command that computes the thresholds."""

    problem: NaeSat | SparseParity
    about: str
    thresholds: str


FROZEN: Mapping[str, FrozenProblem] = {
    "below": FrozenProblem(
        NaeSat("nae_sat", N=24, P=8),
        "below every threshold: the observations say next to nothing about a latent",
        "lo-theory thresholds nae --q 2 --k 3 --observed all",
    ),
    "easy": FrozenProblem(
        NaeSat("nae_sat", N=8, P=24),
        "far above Kesten-Stigum: the observations determine the latents up to a global flip",
        "lo-theory thresholds nae --q 2 --k 3 --observed all",
    ),
    "noisy": FrozenProblem(
        NaeSat("nae_sat", N=12, P=48, noise=0.1),
        "above Kesten-Stigum, one observation in ten flipped",
        "lo-theory thresholds nae --q 2 --k 3 --observed all --noise 0.1",
    ),
    "hard": FrozenProblem(
        SparseParity("sparse_parity", N=18, P=30, k=3, noise=0.05),
        "in the hard phase: above condensation the latents can be known, and Kesten-Stigum is infinite",
        "lo-theory thresholds xor --k 3 --noise 0.05",
    ),
    "condensed": FrozenProblem(
        NaeSat("nae_sat", N=8, P=24, q=5, k=2),
        "five colours, beyond condensation and Kesten-Stigum: few colourings are left",
        "lo-theory thresholds colouring --q 5 --observed all",
    ),
}


@dataclass(frozen=True)
class Frozen:
    """A frozen problem at work: ``arrays`` as files hold them, ``facts`` that the card tells."""

    name: str
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def version(self) -> str:
        """16 hexadecimal digits: a digest of the format, the problem, the sequences and the masks."""
        digest = hashlib.blake2b(f"lo_theory frozen {FORMAT}".encode(), digest_size=8)
        for name in _FIXED:
            array = np.ascontiguousarray(self.arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()


_FIXED = ("prior", "scopes", "table", "order", "sequences", "masked")
_BY_SEQUENCE = ("sequences", "masked", "marginals", "log_evidence", "log_prob")

_MEANING = {
    "prior": "P(latent i = value)",
    "scopes": "the latents of each observation",
    "table": "P(observation = value given its latents), their values as digits of base q, the first one slowest",
    "order": "position of latent i, then of observation j",
    "sequences": "drawn from the distribution",
    "masked": "true where hidden: mask size uniform on 1..L, then a uniform subset",
    "marginals": "exact P(token = value given the tokens not hidden)",
    "log_evidence": "ln P(the tokens not hidden)",
    "log_prob": "ln P(sequence)",
    "information_curve": "h_j: entropy of a hidden token when j random others are revealed, nats",
    "information_curve_error": "its standard error",
    "entropy": "of a sequence, nats: the least loss in total",
    "marginal_entropy": "sum of the entropies of single tokens, nats: what knowing no dependence reaches",
}


def freeze(name: str, n: int = 1000) -> Frozen:
    """Compute a frozen problem with n sequences; ``FROZEN`` has the names.

    Cost: n contexts and 400 L more through the exact posterior, seconds to a minute. Errors: ValueError for another
    name.
    """
    if name not in FROZEN:
        raise ValueError(f"there is no frozen problem {name!r}: known are {', '.join(FROZEN)}")
    problem = FROZEN[name].problem
    distribution, key = problem.make(), Key(problem.seed).fold("frozen").fold(name)
    exact = ExactPosterior(distribution)
    ((batch,),) = draw_contexts(distribution, Uniform(), key, n, size=n)
    answer = batch.ask(exact, "the exact posterior")
    curve = information_curve(exact, distribution, key=key.fold("curve"), n=_CURVE)
    arrays = {
        **_problem(distribution),
        "sequences": batch.truth,
        "masked": batch.masked,
        "marginals": np.asarray(answer.probs, np.float64),
        "log_evidence": answer.log_evidence,
        "log_prob": distribution.log_prob(batch.truth),
        "information_curve": curve.nats,
        "information_curve_error": np.array([sums.standard_error for sums in curve.hidden]),
        "entropy": np.array(distribution.entropy()),
        "marginal_entropy": np.array(distribution.marginal_entropy()),
    }
    return Frozen(name, arrays, _facts(name, distribution, batch, curve))


def _problem(distribution: LODistribution) -> dict[str, NDArray[Any]]:
    law: Any = distribution.observations  # one table for all observations, as nae_sat and sparse_parity have
    return {"prior": distribution.prior, "scopes": law.scopes, "table": law.tables[0], "order": distribution.order}


def _facts(name: str, distribution: LODistribution, batch: Contexts, curve: InformationCurve) -> dict[str, Any]:
    """What the card tells in numbers."""
    law: Any = distribution.observations
    n, p, k = distribution.layout.n_latents, distribution.layout.n_observations, law.scopes.shape[1]
    return {
        "N": n,
        "P": p,
        "q": distribution.layout.q,
        "k": k,
        "length": distribution.layout.length,
        "sequences": len(batch.truth),
        "mean degree c = kP/N": k * p / n,
        "Kesten-Stigum, all observed, c": kesten_stigum(planted_ensemble(law, observed="all")).value,
        "entropy, nats a sequence": distribution.entropy(),
        "entropy from the curve, nats": curve.entropy.mean,
        "its standard error": curve.entropy.standard_error,
        "marginals only, nats a sequence": distribution.marginal_entropy(),
    }


def _card(frozen: Frozen, file: str) -> str:
    """The page beside the file: what it is, its numbers, its arrays, and how to load it."""
    entry = FROZEN[frozen.name]
    lines = [f"# {frozen.name}: {entry.about}", "", f"Version {frozen.version}, format {FORMAT}. Apache-2.0.", ""]
    lines += [f"Settings: `{entry.problem}`. Thresholds: `{entry.thresholds}`.", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value:.6g} |".replace("| inf", "| infinite") for name, value in frozen.facts.items()]
    lines += ["", "| array | type | shape | |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {array.dtype} | {list(array.shape)} | {_MEANING[name]} |" for name, array in frozen.arrays.items()
    ]
    loading = _LOADING[Path(file).suffix].replace("FILE", file)
    return "\n".join([*lines, "", "## Load it without the package", "", "```python", loading, "```", ""])


_LOADING = {
    ".npz": """import numpy as np
frozen = np.load("FILE")
truth, masked = frozen["sequences"], frozen["masked"]
tokens = np.where(masked, -1, truth)                            # what a model is shown: -1 is hidden
answer = frozen["marginals"]                                    # put your model's here: [sequences, length, values]
loss = -np.log(np.take_along_axis(answer, truth[..., None].astype(int), axis=2)[..., 0])
print("nats a hidden token", (loss * masked).sum() / masked.sum())""",
    ".parquet": """import numpy as np, pandas as pd
frozen = pd.read_parquet("FILE")
truth, masked = np.stack(frozen["sequences"]), np.stack(frozen["masked"])
tokens = np.where(masked, -1, truth)                            # what a model is shown: -1 is hidden
answer = np.stack(frozen["marginals"]).reshape(*truth.shape, -1)  # put your model's here
loss = -np.log(np.take_along_axis(answer, truth[..., None].astype(int), axis=2)[..., 0])
print("nats a hidden token", (loss * masked).sum() / masked.sum())""",
}


def _write_npz(frozen: Frozen, path: Path) -> None:
    write_atomically(path, lambda file: write_arrays(file, {**frozen.arrays, "version": np.array(frozen.version)}))


def _write_parquet(frozen: Frozen, path: Path) -> None:
    """A row a sequence, its arrays flattened to lists; what belongs to the problem is JSON in the file's metadata."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("--format parquet needs pyarrow: pip install pyarrow, or take --format npz") from error
    n = len(frozen.arrays["sequences"])
    rows = {name: frozen.arrays[name] for name in _BY_SEQUENCE}
    rest = {name: array.tolist() for name, array in frozen.arrays.items() if name not in rows}
    columns = {name: list(array.reshape(n, -1)) if array.ndim > 1 else array for name, array in rows.items()}
    metadata = {"lo_theory": json.dumps({"version": frozen.version, "format": FORMAT, **rest})}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    write_atomically(path, lambda file: parquet.write_table(table, file))


FORMATS = {"npz": _write_npz, "parquet": _write_parquet}
"""How files are written, by ending."""


def write_frozen(frozen: Frozen, folder: Path, form: str) -> list[Path]:
    """Write the file and its card, ``NAME.npz`` and ``NAME.md``; the folder must exist. Answers what was written.

    Errors: ValueError for parquet where pyarrow is not installed; OSError as the system raises it.
    """
    path, card = folder / f"{frozen.name}.{form}", folder / f"{frozen.name}.md"
    FORMATS[form](frozen, path)
    write_atomically(card, lambda file: file.write(_card(frozen, path.name).encode()))
    return [path, card]
