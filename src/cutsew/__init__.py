"""Cut and sew: multi-label pseudo-labels and a classifier from unlabelled photos."""

from importlib.metadata import version

__version__ = version("cutsew")
