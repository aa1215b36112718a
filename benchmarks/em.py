"""What one E-step costs, whatever the number of images, relative to torch's dense AdamW over the whole table.

python benchmarks/em.py

A step: read the labels of a batch's sources, blend them, take the loss's gradient, move them. The table is as in the
midst of a training: every row has moments, and was last read at another step. One thread, as in training.
"""

from collections.abc import Callable

import torch
import typer

from common import REPEATS, RESULTS, Out, Repeats, Thing, Tiny, measure
from cutsew.method.em import BETAS, EPSILON, LabelTable, blend, e_step_loss
from tables import Report, publish, ratio, row

CLASSES, BATCH, SOURCES = 80, 32, 3
SIZES = (10_000, 100_000, 1_000_000)
LAZY_STEPS, DENSE_STEPS = 200, 5
SEEN = 5000
"""Steps that the table has seen."""
RATE, DECAY = 1e-2, 1e-2


class Lazy:
    """The estimator of the package."""

    def __init__(self, images: int, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(images, CLASSES, generator=generator)
        self.table = LabelTable(z, [RATE] * (SEEN + steps), DECAY)
        self.table.mean.normal_(generator=generator).mul_(1e-5)
        self.table.square.uniform_(1e-12, 1e-10, generator=generator)
        last = torch.randint(0, SEEN, (images,), generator=generator)
        self.table.load_state_dict(self.table.state_dict() | {"last": last})

    def run(self, batches: list[torch.Tensor], p: torch.Tensor) -> None:
        """Make a step with every batch, from the same moment on in every run."""
        state = self.table.state_dict()
        self.table.load_state_dict(state | {"last": self.table.last.clamp(max=SEEN), "steps": SEEN})
        for sources in batches:
            index, place = torch.unique(sources, return_inverse=True)
            rows = self.table.rows(index)
            e_step_loss(blend(rows[place]).z, p).backward()
            assert rows.grad is not None
            self.table.step(index, rows.grad)


class Dense:
    """torch's AdamW over the whole table."""

    def __init__(self, images: int) -> None:
        self.table = torch.nn.Parameter(torch.randn(images, CLASSES, generator=torch.Generator().manual_seed(0)))
        self.optimizer = torch.optim.AdamW(
            [self.table], lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=True
        )

    def run(self, batches: list[torch.Tensor], p: torch.Tensor) -> None:
        """Make a step with every batch."""
        for sources in batches:
            self.optimizer.zero_grad(set_to_none=False)
            e_step_loss(blend(self.table[sources]).z, p).backward()
            self.optimizer.step()


def main(tiny: Tiny = False, repeats: Repeats = REPEATS, out: Out = RESULTS) -> None:
    """Measure steps at several numbers of images."""
    torch.set_num_threads(1)
    sizes, steps = (SIZES[:1], 2) if tiny else (SIZES, LAZY_STEPS)
    things = []
    for images in sizes:
        things.append(_thing(f"lazy, N = {images:,}", Lazy(images, steps).run, images, steps))
        things.append(_thing(f"dense, N = {images:,}", Dense(images).run, images, min(steps, DENSE_STEPS)))
    rounds = measure(things, repeats)
    first, last = (f"lazy, N = {images:,}" for images in (sizes[0], sizes[-1]))
    ratios = [ratio(f"{last} / {first}, {steps} steps each", last, first, rounds, bar="at most 1.2")]
    title = f"EM: {SOURCES} sources for each of {BATCH} sewn images, {CLASSES} classes"
    conditions = {"classes": CLASSES, "batch": BATCH, "sources": SOURCES, "threads": 1}
    publish(Report("em", title, [row(thing, rounds) for thing in things], ratios, conditions), out, tiny)


def _thing(name: str, run: Callable[[list[torch.Tensor], torch.Tensor], None], images: int, steps: int) -> Thing:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(images, (BATCH, SOURCES), generator=generator) for _ in range(steps)]
    p = torch.randn(BATCH, CLASSES, generator=generator)
    return Thing(name, lambda: run(batches, p), units=steps, unit="step")


if __name__ == "__main__":
    typer.run(main)
