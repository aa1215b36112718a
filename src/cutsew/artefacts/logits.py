"""Layout of the label artefacts: logits.zarr, fused.zarr, pseudo.zarr, refined.zarr, scores.zarr."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from cutsew.artefacts.layout import Spec

if TYPE_CHECKING:
    import zarr

Activation = Literal["softmax", "sigmoid"]

ROWS = 4096
"""Photos in one chunk of logits.zarr and of what is made from it, however large the shards are."""


@dataclass(frozen=True)
class Answers:
    """What a teacher's logits are; kept as attributes of logits.zarr and of what is fused from it.

    Attributes:
        activation: of the probabilities: a softmax over the classes, clamped on its way to logits, or a sigmoid per
            class, whose logits are not clamped.
        background: how many words of no class took part in the softmax.

    """

    activation: Activation = "softmax"
    background: int = 0

    @property
    def sum_to_one(self) -> bool:
        """Whether a view's probabilities of all classes sum to one."""
        return self.activation == "softmax" and not self.background

    def attributes(self) -> dict[str, Any]:
        """Return them as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, group: "zarr.Group") -> "Answers":
        """Read them from a group; a softmax over the classes alone where it does not say."""
        attributes: dict[str, Any] = dict(group.attrs)
        return cls(attributes.get("activation", cls.activation), attributes.get("background", cls.background))


def label_spec(images: int, classes: int, rows: int, dtype: str = "float32") -> Spec:
    """Describe an (image, class) array whose chunks hold `rows` images."""
    return Spec((images, classes), dtype, ("image", "class"), (rows, classes))


def logit_specs(images: int, classes: int, passes: int, rows: int) -> dict[str, Spec]:
    """Describe logits.zarr: Z0 of the whole photos and Z^k of the crops, a chunk for `rows` images of one pass."""
    return {
        "zero_shot": label_spec(images, classes, rows),
        "crops": Spec((passes, images, classes), "float32", ("pass", "image", "class"), (1, rows, classes)),
    }
