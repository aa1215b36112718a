"""`method: released`: the authors' released code where it differs from the paper, each difference settable alone."""

from collections.abc import Mapping
from typing import Any

RELEASED: dict[str, Any] = {
    "prompts.templates": ["a photo contains {class}"],
    "cut.passes": 30,
    "fuse.rule": "gated",
    "select.labels": "pseudo",
    "sew.q": 0.65,
    "sew.ratio": "side",
    "sew.max_overlays": 1,
    "sew.at_least_one": True,
    "train.lr_decoder": 5e-5,
    "train.strong_weight": 0.7,
    "train.em_weight": 0.5,
    "train.correct_after": True,
}
"""Dotted setting -> value of the released code, for all that differ from the paper.

Its choice of passes by the mAP against the training labels is not among them: that is a leak. Its mistaken order of
position embeddings and its decay of the rows of Z outside a batch are not offered either.
"""


def fill_in(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which `method: released` has set what the user has not; others are returned as they are.

    Args:
        raw: nested settings as read from the config file, not yet checked. What is not a mapping where one should be
            is left for the check to report.

    """
    filled = dict(raw)
    if raw.get("method") == "released":
        for dotted, value in RELEASED.items():
            section, _, key = dotted.partition(".")
            own = filled.get(section, {})
            if isinstance(own, Mapping):
                filled[section] = {key: value, **own}
    return filled
