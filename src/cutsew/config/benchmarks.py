"""The published benchmarks: which lists a protocol reads, and how many classes and photos it has."""

from dataclasses import dataclass, field
from typing import Literal

Benchmark = Literal["voc2007", "voc2012", "coco2014", "nuswide"]
Protocol = Literal["paper", "common"]
Unlabelled = Literal["keep", "drop"]


@dataclass(frozen=True)
class Known:
    """What is published of a benchmark under one protocol.

    Attributes:
        kind: layout on disk, as in `dataset.kind`; its section of the settings names the lists.
        train: list of the photos to label and to train on; None where the release holds no such list.
        test: list of the held-out photos; None as above.
        classes: how many.
        totals: `dataset.unlabelled` -> photos of both lists; without those whose number is not published.
        unlabelled: how the protocol treats photos without any label.

    """

    kind: str
    train: str | None
    test: str | None
    classes: int
    totals: dict[Unlabelled, tuple[int, int]] = field(default_factory=dict)
    unlabelled: Unlabelled = "keep"


KNOWN: dict[tuple[Benchmark, Protocol], Known] = {
    ("voc2007", "paper"): Known("voc", "train", "val", 20, {"keep": (2501, 2510)}),
    ("voc2007", "common"): Known("voc", "trainval", "test", 20, {"keep": (5011, 4952)}),
    ("voc2012", "paper"): Known("voc", "train", "val", 20, {"keep": (5717, 5823)}),
    ("coco2014", "paper"): Known(
        "coco", "train2014", "val2014", 80, {"drop": (82081, 40137), "keep": (82783, 40504)}, "drop"
    ),
    # The paper's lists of about 150,000 and 60,000 photos are no part of the release; others drew them before.
    ("nuswide", "paper"): Known("nus", None, None, 81, {"keep": (150000, 60260)}),
    ("nuswide", "common"): Known("nus", "TrainImagelist", "TestImagelist", 81, {"keep": (161789, 107859)}),
}
"""Everingham et al. (VOC), Lin et al. 2014 (COCO; Abdelfattah et al., ICCV 2023, without images that nothing is
annotated in), Chua et al. 2009 (NUS-WIDE)."""


def protocols_of(benchmark: str) -> list[str]:
    """Name the protocols of a benchmark."""
    return [protocol for name, protocol in KNOWN if name == benchmark]
