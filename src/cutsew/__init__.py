"""Cut and sew: multi-label pseudo-labels and a classifier from unlabeled images.

The names below load with the first use, so `import cutsew` imports neither torch nor pandas.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutsew.api import Classifier as Classifier
    from cutsew.api import Run as Run
    from cutsew.api import load_student as load_student
    from cutsew.api import open_run as open_run
    from cutsew.api import run_folder as run_folder
    from cutsew.errors import UserError as UserError

__version__ = version("cutsew")

_PUBLIC = dict.fromkeys(("Classifier", "Run", "load_student", "open_run", "run_folder"), "cutsew.api")
_PUBLIC["UserError"] = "cutsew.errors"

__all__ = ["Classifier", "Run", "UserError", "__version__", "load_student", "open_run", "run_folder"]


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cutsew' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names and the submodules that are loaded."""
    return sorted({*globals(), *__all__})
