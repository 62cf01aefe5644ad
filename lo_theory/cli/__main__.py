"""``python -m lo_theory.cli`` is ``lo-theory``."""

from lo_theory.cli import console

if __name__ == "__main__":
    console()
