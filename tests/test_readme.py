"""The README's example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_example_in_the_readme_runs_and_is_consistent(capsys):
    readme = Path(__file__).parent.parent / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    exec(compile(example, str(readme), "exec"), {})
    low, high = eval(capsys.readouterr().out)
    assert 0.99 < low < high <= 1.0
