"""Random draws that depend on content alone: not on order, batch, worker or node."""

import hashlib

import numpy as np


def keyed_rng(*parts: str | int) -> np.random.Generator:
    """Return a generator keyed by its parts, such as (seed, image digest, pass).

    Equal parts give equal draws on every machine; different parts give independent ones.
    """
    return np.random.Generator(np.random.Philox(key=_key(parts)))


def torch_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2^63) for `torch.manual_seed`, keyed in the same way."""
    return _key(parts) % 2**63


def _key(parts: tuple[str | int, ...]) -> int:
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
