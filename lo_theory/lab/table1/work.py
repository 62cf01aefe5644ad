"""What one row of Table 1 computes, as units of work.

Facts of the problem, the exact posterior and a trained model as denoisers, losses against the exact posterior, one-pass
accuracies, and a grid of decodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from lo_theory.diffusion import (
    BinomialRule,
    DecodeOptions,
    FixedCount,
    Noise,
    OneAtATime,
    Schedule,
    Sums,
    dead_checks,
    decode,
    find_dead_ends,
    losses,
)
from lo_theory.lab import measures
from lo_theory.lab.laws import policy
from lo_theory.lab.settings import Cell, mask_law, step_count
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.units import Unit, Watched

__all__ = ["named", "units"]


def named(s: Subject) -> Subject:
    """The subject under the pair (N, P) and the row's own name, where it has one."""
    return s.named(f"{s.size} {s.row.name}", name=s.row.name) if s.row.name else s.named(s.size)


def units(s: Subject, *, find_all_dead_ends: bool = False) -> Iterator[Unit]:
    """All units, in the order in which their rows are kept.

    ``find_all_dead_ends``: the exact posterior looks for those of every denoiser, at some log2(steps) calls a decode.
    """
    s, row, evaluation = named(s), s.row, s.row.evaluation
    yield s.unit("problem", "problem", partial(measures.problem, s.distribution))
    if row.training is not None:
        training = partial(measures.training, s, s.learner(), {})
        yield s.unit("training", "training", training, learner=s.learner())
        for law in evaluation.laws:
            label, forwards = f"losses under {law}", evaluation.sequences
            yield s.unit(f"losses/{law}", label, partial(_losses, s, law), ["training"], forwards=forwards)
        label, forwards = "model, one pass", 2 * evaluation.sequences
        yield s.unit("one_pass/model", label, partial(_one_pass, s, "model"), ["training"], forwards=forwards)
    if evaluation.exact:
        yield s.unit("one_pass/exact", "exact posterior, one pass", partial(_one_pass, s, "exact"))
    for cell in row.decoding.cells():
        steps, of_model = step_count(cell.steps, s.distribution.layout.length), cell.denoiser == "model"
        warmth = "" if cell.temperature is None else f", temperature {cell.temperature:g}"
        label = f"{cell.denoiser}, {cell.policy}, {cell.steps} steps{', argmax' if cell.argmax else ''}{warmth}"
        yield s.unit(
            f"decode/{cell.name}",
            label,
            partial(_decode, s, cell, steps, find_all_dead_ends),
            ["training"] if of_model else (),
            forwards=row.decoding.sequences * steps if of_model else 0,
        )


def _denoiser(s: Subject, name: str) -> Watched:
    """``exact``, ``model`` or ``bp``."""
    if name == "model":
        row, rows = s.row, s.context.options.rows_at_once
        compiled = row.training is not None and row.training.compile
        # One shape is compiled, and fewer rows are filled up to it: none should be filled up while decoding.
        batch = min(rows, row.decoding.sequences) if compiled else rows
        return s.watched(s.model(s.learner(), batch=batch, compiled=compiled))
    return s.watched(s.bp() if name == "bp" else s.exact(s.row.evaluation.limit_states))


def _one_pass(s: Subject, denoiser: str) -> list[Finding]:
    key = s.key.fold("one pass")  # the same contexts for every denoiser
    found = measures.one_pass(_denoiser(s, denoiser), s.distribution, key, s.row.evaluation.sequences)
    return [Finding("one_pass", {"denoiser": denoiser}, found)]


def _losses(s: Subject, text: str) -> list[Finding]:
    """Losses of the model under a mask law, over all contexts and by class."""
    setting, law = s.row.evaluation, mask_law(text)
    exact, names = (_denoiser(s, "exact"), ("model", "exact", "kl")) if setting.exact else (None, ("model",))
    # With the problem in the key, rows of one seed do not share their draw of mask sizes.
    key = s.key.fold("losses").fold(s.distribution.fingerprint()).fold(law.name)
    measured = losses(_denoiser(s, "model"), exact, s.distribution, law, key=key, n=setting.sequences)
    found = [Finding("losses", {"law": law.name}, {name: getattr(measured, name) for name in names})]
    for part in measured.classes:
        hidden = {"latents_hidden": part.latents_hidden, "observations_hidden": part.observations_hidden}
        sums = {name: getattr(part, name) for name in names}
        found.append(Finding("class_losses", {"law": law.name, **hidden}, sums))
    return found


def _decode(s: Subject, cell: Cell, steps: int, find_all_dead_ends: bool) -> list[Finding]:
    """One decode, and how good its sequences are."""
    setting, key = s.row.decoding, s.key.fold("decode").fold(cell.name)
    noise = Noise(**asdict(cell.noise)) if cell.noise is not None else None
    temperature = setting.temperature if cell.temperature is None else cell.temperature
    decoded = decode(
        _denoiser(s, cell.denoiser),
        policy(cell.policy),
        _schedule(s, cell, steps),
        key=key,
        n=setting.sequences,
        options=DecodeOptions(temperature, cell.argmax, noise, setting.chunk),
    )
    dead_ends: dict[str, Sums] = {}
    knows = cell.denoiser == "exact"  # a model does not notice that what it has written is impossible
    if knows or find_all_dead_ends:
        seen = decoded if knows else find_dead_ends(_denoiser(s, "exact"), decoded)
        dead_ends = {"impossible": Sums.of(seen.impossible), "alive_steps": Sums.of(seen.alive_steps)}
        dead_ends |= dead_checks(s.distribution, seen)
    metrics = measures.generated(s.distribution, decoded.tokens, key.fold("judge"), dead_ends)
    return [Finding("decode", {**cell.keys, "steps": steps, "temperature": temperature}, metrics)]


def _schedule(s: Subject, cell: Cell, steps: int) -> Schedule:
    if cell.schedule == "binomial":
        return BinomialRule(steps)
    return OneAtATime() if steps == s.distribution.layout.length else FixedCount(steps)
