"""The commands ``sample`` and ``export``: sequences of a family of distributions, and frozen problems, as files.

Writes the files named, nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lo_theory.cli.shared import check_ending

__all__ = ["add_commands", "add_families", "family_problem"]


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add ``sample``, with one family below it for each that a configuration may name, and ``export``."""
    _add_sample(commands.add_parser("sample", help="draw sequences from a family of distributions"), shared)
    words = "frozen problems with sequences, masks and exact answers, as files that need no lo_theory to be read"
    _add_export(commands.add_parser("export", parents=[shared], help=words, description=words))


def add_families(
    command: argparse.ArgumentParser, shared: argparse.ArgumentParser
) -> Iterator[argparse.ArgumentParser]:
    """Add a parser for each family of distributions, with its settings as options, and yield it."""
    from lo_theory.lab.problems import FAMILIES

    families = command.add_subparsers(title="families", required=True, metavar="FAMILY")
    for name, kind in FAMILIES.items():
        family = families.add_parser(name, parents=[shared], help=kind.__doc__, description=kind.__doc__)
        for field in dataclasses.fields(kind)[1:]:
            _add_setting(family, field, typing.get_type_hints(kind)[field.name])
        family.set_defaults(kind=kind)
        yield family


def family_problem(options: argparse.Namespace) -> Any:
    """The problem that the options of a family say, as settings."""
    from lo_theory.lab.schema import build

    names = {field.name: f"setting_{field.name}" for field in dataclasses.fields(options.kind)[1:]}
    family = typing.get_args(typing.get_type_hints(options.kind)["family"])[0]
    given = {name: getattr(options, option) for name, option in names.items()}
    return build(options.kind, {"family": family, **given})


def _add_sample(command: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    for family in add_families(command, shared):
        family.add_argument("-n", type=int, required=True, metavar="SEQUENCES", help="how many sequences")
        family.add_argument("--seed", type=int, default=0, help="seed of the sequences (default: 0)")
        family.add_argument(
            "--threads", type=int, default=1, help="processor threads; the sequences do not depend on it"
        )
        family.add_argument(
            "-o", "--output", type=Path, required=True, metavar="FILE.npz", help="where to write the sequences"
        )
        family.add_argument("--save-problem", type=Path, metavar="FILE.npz", help="also write the distribution itself")
        family.set_defaults(function=_sample)


def _add_setting(family: argparse.ArgumentParser, field: dataclasses.Field[Any], hint: Any) -> None:
    """Make an option of a setting of a family; its own seed is called --problem-seed."""
    name = "problem-seed" if field.name == "seed" else field.name
    required = field.default is dataclasses.MISSING
    extra: dict[str, Any] = {"required": required, "default": None if required else field.default}
    if hint is bool:
        extra = {"action": "store_true"}
    elif typing.get_origin(hint) is typing.Literal:
        extra["choices"] = typing.get_args(hint)
    else:
        extra |= {"type": hint, "metavar": field.name if len(field.name) == 1 else field.name.upper()}
    family.add_argument(
        f"--{name}", dest=f"setting_{field.name}", help=None if required else "(default: %(default)s)", **extra
    )


def _sample(options: argparse.Namespace) -> None:
    import numpy as np

    from lo_theory.problem.seams import check_threads
    from lo_theory.problem.storage import write_arrays, write_atomically
    from lo_theory.rng import Key

    if options.n < 1:
        raise ValueError(f"-n must be at least 1, got {options.n}")
    check_threads(options.threads, "--threads")
    check_ending("-o", options.output, ".npz")
    check_ending("--save-problem", options.save_problem, ".npz")
    distribution = family_problem(options).make()
    tokens = distribution.sample(Key(options.seed).fold("sample"), options.n, threads=options.threads)
    arrays = {
        "tokens": tokens,
        "latent_positions": distribution.layout.latent_positions,
        "observation_positions": distribution.layout.observation_positions,
        "problem": np.array(distribution.fingerprint()),
    }
    write_atomically(options.output, lambda file: write_arrays(file, arrays))
    if options.save_problem is not None:
        distribution.save(options.save_problem)
    layout = distribution.layout
    print(f"{options.output}: {options.n} sequences, N = {layout.n_latents}, P = {layout.n_observations}")


def _add_export(command: argparse.ArgumentParser) -> None:
    words = "below, easy, noisy, hard, condensed, or all"
    command.add_argument("names", nargs="+", metavar="PROBLEM", help=words)
    command.add_argument("--format", default="npz", choices=("npz", "parquet"), help="(default: npz)")
    command.add_argument(
        "--to", type=Path, default=Path(), metavar="FOLDER", help="where to write (default: the current folder)"
    )
    command.set_defaults(function=_export)


def _export(options: argparse.Namespace) -> None:
    from lo_theory.lab.frozen import FROZEN, freeze, write_frozen

    unknown = [name for name in options.names if name not in FROZEN and name != "all"]
    if unknown:
        raise ValueError(f"there is no frozen problem {unknown[0]!r}: known are {', '.join(FROZEN)}, and all")
    if not options.to.is_dir():
        raise ValueError(f"--to {options.to}: there is no such folder; make it first")
    for name in FROZEN if "all" in options.names else dict.fromkeys(options.names):
        frozen = freeze(name)
        print(*write_frozen(frozen, options.to, options.format), frozen.version)
