"""Settings: one typed model, loaded once, from which schema, defaults and reference are generated."""

from cutsew.config.load import load, override
from cutsew.config.model import Config

__all__ = ["Config", "load", "override"]
