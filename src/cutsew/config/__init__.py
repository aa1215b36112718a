"""Settings: one typed model, loaded once, from which schema, defaults and reference are generated."""

from cutsew.config.loading import load, load_runs, override, with_command_line
from cutsew.config.schema import Config

__all__ = ["Config", "load", "load_runs", "override", "with_command_line"]
