"""Layout of the label artefacts: logits.zarr, fused.zarr, pseudo.zarr, refined.zarr, scores.zarr."""

from cutsew.artefacts.layout import Spec

ROWS = 4096
"""Photos in one chunk of logits.zarr and of what is made from it, however large the shards are."""


def label_spec(images: int, classes: int, rows: int, dtype: str = "float32") -> Spec:
    """Describe an (image, class) array whose chunks hold `rows` images."""
    return Spec((images, classes), dtype, ("image", "class"), (rows, classes))


def logit_specs(images: int, classes: int, passes: int, rows: int) -> dict[str, Spec]:
    """Describe logits.zarr: Z0 of the whole photos and Z^k of the crops, a chunk for `rows` images of one pass."""
    return {
        "zero_shot": label_spec(images, classes, rows),
        "crops": Spec((passes, images, classes), "float32", ("pass", "image", "class"), (1, rows, classes)),
    }
