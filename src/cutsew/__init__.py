"""Cut and sew: multi-label pseudo-labels and a classifier from unlabeled images."""

from importlib.metadata import version

__version__ = version("cutsew")
