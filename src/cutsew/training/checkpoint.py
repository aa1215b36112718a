"""The file from which a killed training goes on."""

import logging
import time
from pathlib import Path
from typing import Any

import torch

from cutsew.artefacts.atomic import replacing

log = logging.getLogger(__name__)
NAME = ".train.checkpoint.pt"


class Checkpoint:
    """One checkpoint file, replaced atomically.

    Args:
        folder: where the adapter will be written.
        signature: digest of settings and inputs; a checkpoint with another one is not used.
        pause: least seconds between checkpoints, so that short steps are not spent on writing.

    """

    def __init__(self, folder: Path, signature: str, pause: float) -> None:
        self.path = folder / NAME
        self._signature = signature
        self._pause = pause
        self._saved = time.monotonic()

    def load(self, device: str) -> dict[str, Any] | None:
        """Return what was saved last, or None where there is nothing that fits."""
        if not self.path.is_file():
            return None
        try:
            saved: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # noqa: BLE001 - a damaged file fails in many ways, and starting anew mends all
            log.info("%s: unreadable (%s); training starts anew", self.path, type(error).__name__)
            return None
        if saved.get("signature") != self._signature:
            log.info("%s: made with other settings or inputs; training starts anew", self.path)
            return None
        return saved

    def due(self) -> bool:
        """Say whether it is time to save."""
        return time.monotonic() - self._saved >= self._pause

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        with replacing(self.path) as draft:
            torch.save({**state, "signature": self._signature}, draft)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoint after success."""
        self.path.unlink(missing_ok=True)
