"""How tools print paths."""

import os
from pathlib import Path


def shown(path: Path) -> str:
    """Return a path below the working folder as relative to it, another as it is."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
