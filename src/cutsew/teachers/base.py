"""What every teacher can do."""

from typing import Protocol

from torch import Tensor


class Teacher(Protocol):
    """A vision-language model: image and text embeddings in one space.

    Attributes:
        width: D, of an embedding.
        image_size: side of its square views, in pixels.
        logit_scale: factor of the cosine before the softmax over the classes (Eq. 3).
        weights_digest: SHA-256 of its weights.

    """

    width: int
    image_size: int
    logit_scale: float
    weights_digest: str

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed views.

        Args:
            images: (B, 3, S, S) uint8 with S = `image_size`.

        Returns:
            (B, D) float32 on the CPU, L2-normalised. On a CPU a row depends on its own view alone, bit for bit.

        """

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed texts: (n, D) float32 on the CPU, L2-normalised."""
