"""``python -m lo_theory`` is ``lo-theory``."""

from lo_theory.cli import console

if __name__ == "__main__":
    console()
