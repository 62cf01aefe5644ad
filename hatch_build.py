"""Build hook: the wheel carries the experiment files, so that `lo-theory run table1` works without the repository."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Experiments(BuildHookInterface[Any]):
    """Adds experiments/*.yaml to a wheel; an editable installation reads them where they are."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to what the wheel includes."""
        if version == "editable":
            return
        for path in sorted(Path(self.root, "experiments").glob("*.yaml")):
            build_data["force_include"][str(path)] = f"lo_theory/experiments/{path.name}"
