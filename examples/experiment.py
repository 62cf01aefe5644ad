"""How many sequences until a masked model knows the forward direction: observations from latents that are all given.

The easiest fill-in problem of L&O data: no inference, every observation is a function of three visible tokens, but
which three must be learned. Training is on masks two_rates(0,1) alone, at a constant rate after a warm-up. Losses are
those under the problem's own prior.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from lo_theory.lab import measures
from lo_theory.lab.frame import of_kind, parts
from lo_theory.lab.kinds import Kind, Metric
from lo_theory.lab.panel import Panel, Sheet
from lo_theory.lab.problems import Problem
from lo_theory.lab.settings import Model, Objective, Training
from lo_theory.lab.subject import Finding
from lo_theory.lab.table import Table, key, mean, measured

FORWARD = "two_rates(0,1)"
SHARES = (0.9, 0.5, 0.1)  # of the entropy of a single observation
REACHED = {f"to_{share}": Metric("single", f"sequences until the loss is below {share}") for share in SHARES}
KINDS = {
    "forward": Kind("how soon an observation is known", ("way",), REACHED),
    "forward_loss": Kind("loss by step", ("way", "step"), {"loss": Metric("mean", "nats/entropy")}),
}


@dataclass(frozen=True)
class Row:
    """The settings of a row: a problem, and how a network is trained on it."""

    problem: Problem
    training: Training
    seed: int = 0
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=partial(Objective, (FORWARD,)))


def rows(pairs, ways, steps, shape, stages=((),)):
    """A row for each pair (N, P), curriculum, and way to train: optimiser, rate, scale of the initial embeddings."""
    fixed = {"steps": steps, "batch": 16, "final_ratio": 1.0, "warmup": 100}
    return [
        {
            "problem": {"family": "nae_sat", "N": n, "P": p},
            "model": {"shape": shape, "embedding_scale": scale},
            "objective": {"laws": [FORWARD], "stages": list(own)},
            "training": {**fixed, "optimiser": optimiser, "learning_rate": rate},
        }
        for n, p in pairs
        for own in stages
        for optimiser, rate, scale in ways
    ]


WAYS = [("adamw", 1e-3, 0.1), ("adamw", 1e-3, 1.0), ("muon", 1e-3, 0.1), ("muon", 2e-3, 0.1), ("muon", 1e-3, 1.0)]
BIASED = {"share": 0.4, "laws": [FORWARD], "prior": [0.2, 0.8]}  # most latents are 1
LAPTOP, FIVE = {"layers": 3, "heads": 8, "width": 96, "inner": 192}, [(25, 275), (30, 270), (40, 260), (50, 250)]
EXPERIMENT = {  # what an experiment file in YAML would hold
    "title": "Sequences until the forward direction is known",
    "rows": rows([(16, 32), (32, 64)], WAYS, 800, LAPTOP),
    "presets": {
        "quick": {"rows": rows([(6, 12), (8, 16)], WAYS[:2], 160, LAPTOP)},
        "prior": {"rows": rows([(50, 100), (100, 200)], WAYS[3:4], 1250, {**LAPTOP, "heads": 3}, ((), [BIASED]))},
        "paper": {"rows": rows([*FIVE, (100, 200)], WAYS[2:4], 12_500, "19M")},
    },
}


def units(s):
    """The units of work of a row: one training."""
    way = f"{s.row.training.optimiser} {s.row.training.learning_rate:g}, scale {s.row.model.embedding_scale:g}"
    way += "".join(f", first {stage.share:.0%} {stage.name}" for stage in s.row.objective.stages)
    learner = s.learner(f"{s.size} {way}")
    yield s.unit("training", f"{learner.name} training", partial(train, s, learner, way), learner=learner)


def train(s, learner, way):
    """Train, and find in the journal when the loss fell below each share of the entropy of an observation."""
    s.trained(learner)
    law = s.distribution.token_marginals[s.distribution.layout.observation_positions]
    entropy = -(law * np.log(law)).sum(axis=1).mean()
    losses = {step: loss / entropy for step, loss in measures.logged_losses(s, learner).items()}
    below = {share: [step for step, loss in losses.items() if loss < share] for share in SHARES}
    reached = {f"to_{share}": min(steps) * learner.training.batch for share, steps in below.items() if steps}
    yield Finding("forward", {"way": way}, measures.singles(reached))
    for step, sums in measures.pooled(losses).items():
        yield Finding("forward_loss", {"way": way, "step": step}, {"loss": sums})


def losses(frame):
    """Loss by step."""
    return of_kind(frame, "forward_loss", ["N", "P", "way", "step"], over="row")


def tables(frame, experiment):
    """Sequences to each share, and the loss at the end."""
    names, shares = [key("N"), key("P"), key("way", left=True)], [mean(f"to_{share}", form=".0f") for share in SHARES]
    reached = of_kind(frame, "forward", ["N", "P", "way"], over="row")
    yield Table("Sequences until the loss is below a share of an observation's entropy", names + shares, reached)
    last = {(line.N, line.P, line.way): line for line in losses(frame)}
    yield Table("Loss at the end", [*names, key("step"), measured("loss")], list(last.values()))


def figures(frame, experiment):
    """A panel for each problem: the loss during the training."""
    lines, axes = losses(frame), {"xlabel": "steps", "ylabel": "loss/entropy of an observation"}
    colours = {way: f"C{i}" for i, way in enumerate(sorted({line.way for line in lines}))}

    def panel(here):
        look = lambda line: {"color": colours[line.way], "label": line.way}  # noqa: E731
        title = f"N = {here[0].N}, P = {here[0].P}"
        return Panel(title, "curves", here, x="step", y="loss", look=look, **axes)

    panels = [panel(here) for here in parts(lines, "N", "P")]
    return {"figure": Sheet(experiment.title, panels, 2, (11, 4.5))}
