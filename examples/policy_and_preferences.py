"""Two proposals on the exact posterior, without training a network: a learned order and learned sizes of steps, and
preference bounds by how many rates and masks are drawn.
"""

from lo_theory import ExactPosterior, Key, nae_sat
from lo_theory.diffusion import (
    Allocation,
    FixedCount,
    LearnedSizes,
    Policy,
    PositionHead,
    Schedule,
    decode_cost,
    elbo_variance,
    optimise_plan,
    vanilla,
)
from lo_theory.posterior import MarginalsOnly, Mixed, Sharpened

PROBLEM = nae_sat(4, 8, seed=0)
EXACT = ExactPosterior(PROBLEM)
UNIFORM = LearnedSizes(((0.0, 0.0), (0.0, 0.0)))  # three steps; the last reveals what is left
PLANS: dict[str, tuple[Policy, Schedule]] = {
    "order, four tokens a step": (PositionHead(), FixedCount(3)),
    "sizes, random order": (vanilla(), UNIFORM),
    "order and sizes": (PositionHead(), UNIFORM),
}


def plan_costs() -> dict[str, tuple[float, float]]:
    """Nats a sequence that 12 tokens in three steps cost before and after 60 iterations, by what is learned."""

    def cost(policy: Policy, schedule: Schedule) -> float:
        return decode_cost(EXACT, policy, schedule, PROBLEM, key=Key(3), n=2000).total.mean

    found = {}
    for name, start in PLANS.items():
        learned = optimise_plan(EXACT, PROBLEM, *start, key=Key(1), iterations=60)
        found[name] = cost(*start), cost(learned.policy, learned.schedule)
    return found


def allocations() -> tuple[Allocation, ...]:
    """Every way to spend 8 contexts a sequence on the difference of two bounds.

    The reference is 0.7 of the exact posterior and 0.3 of the marginals; the model is its square, normalised.
    """
    reference = Mixed(EXACT, MarginalsOnly(PROBLEM), 0.3)
    return elbo_variance(Sharpened(reference, 1.0), reference, PROBLEM.sample(Key(1), 50)).table(8)


def main() -> None:
    """Print both tables."""
    print("cost of three steps, nats a sequence    before   after")
    for name, (before, after) in plan_costs().items():
        print(f"{name:<37} {before:8.2f} {after:7.2f}")
    print("\nrates   masks a rate   variance of the difference, draws shared   not shared")
    ways = allocations()
    apart = {(way.rates, way.masks): way.variance for way in ways if not way.shared}
    for way in (way for way in ways if way.shared):
        print(f"{way.rates:5} {way.masks:14} {way.variance:42.2f} {apart[way.rates, way.masks]:12.2f}")


if __name__ == "__main__":
    main()
