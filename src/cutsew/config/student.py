"""Settings of the student: frozen backbone, adapter and training."""

from typing import Annotated, Literal

from pydantic import Field

from cutsew.config.base import MODEL_NAME, Fraction, OpenClipModel, Precision, Preprocessing, Section, Size


class OpenClipStudent(OpenClipModel):
    """Any open_clip visual tower without its pooling."""

    model: str = Field("RN101", description=MODEL_NAME)
    image_size: Size = Field(448, description="side of the square input in pixels")


class TimmStudent(Section):
    """Any timm model that gives a feature map."""

    model: str = Field(
        "tf_efficientnet_lite0", description="timm model name, with its tag (resnet50.a1_in1k) or without"
    )
    weights: str = Field(
        "package", description="package: from extra `offline`; pretrained: from the hub; or the path of a local file"
    )
    image_size: Size = Field(288, description="side of the square input in pixels")
    preprocessing: Preprocessing = Field(
        default_factory=Preprocessing,
        description="null takes it from the tag, from config.json next to the local file, or from all tags of the "
        "model where they agree",
    )


class Student(Section):
    """The frozen backbone under the adapter."""

    kind: Literal["open_clip", "timm", "none"] = Field(
        "open_clip", description="which of the sections below is used; none stops at the pseudo-labels"
    )
    head: Literal["adapter", "linear"] = Field(
        "adapter",
        description="what is trained on the backbone's grid features: adapter, the paper's (sections `adapter` and "
        "`train`); linear, class-specific residual attention (section `linear`), in a fraction of the time",
    )
    precision: Precision = Field(
        "tf32",
        description="number format: float32; tf32, the same with a GPU's TF32 tensor cores; bfloat16; float16 (GPU)",
    )
    compiled: bool = Field(False, description="compile it with torch.compile; a minute per job, then faster")
    open_clip: OpenClipStudent = Field(default_factory=OpenClipStudent, description="kind open_clip")
    timm: TimmStudent = Field(default_factory=TimmStudent, description="kind timm")


class Adapter(Section):
    """The trained part of the student (Eq. 14-16)."""

    reduction: Size = Field(16, description="the bottleneck's narrowing")
    width: Size = Field(256, description="width of the decoder")
    layers: Size = Field(2, description="decoder layers")
    heads: Size = Field(8, description="attention heads")
    feedforward: Size = Field(256, description="width of the decoder's feed-forward layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the decoder")


class Linear(Section):
    """Training of the linear head (not the paper's): it learns from the labels as they are, without an E-step."""

    steps: Size = Field(800, description="optimizer steps; the learning rate falls to 0 by a cosine")
    batch_size: Size = Field(64, description="images per step")
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="AdamW's learning rate; auto chooses one of `rates` without labels: heads trained on one half of "
        "the images are asked about the other half",
    )
    rates: list[Annotated[float, Field(gt=0)]] = Field(
        [3e-4, 1e-3, 3e-3], min_length=1, description="learning rates that `lr: auto` tries"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's")
    sewn_epochs: Size = Field(
        8, description="epochs of sewn images whose features are made; the steps go through them again and again"
    )


class Train(Section):
    """Interactive cutting and sewing (Eq. 17-20, Algorithm 1)."""

    labels: Literal["pseudo", "fused", "zero_shot"] = Field("pseudo", description="which labels to start from")
    epochs: Size | Literal["auto"] = Field(
        1, description="passes over the training photos; auto: as many as give at least 800 steps"
    )
    batch_size: Size = Field(16, description="photos per step")
    lr_adapter: float = Field(1e-3, gt=0, description="learning rate of the adapter")
    lr_decoder: float | None = Field(None, gt=0, description="learning rate of its decoder; null for lr_adapter")
    lr_estimator: float = Field(1e-2, gt=0, description="learning rate of the pseudo-labels in the E-step")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, for all groups")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="constant is the paper's; cosine falls to 0"
    )
    warmup: Fraction = Field(0.0, description="share of the steps in which the rate rises from 0")
    strong_weight: float = Field(
        0.0, ge=0, description="weight of the loss on a flipped, RandAugmented view (released code: 0.7)"
    )
    em_weight: float = Field(1.0, ge=0, description="weight of the E-step's loss (Eq. 19); 0 keeps the labels fixed")
    correct_after: bool = Field(False, description="apply the correction once more after training (released code)")
    seed: int = Field(9, description="seed of initial weights, order, overlays, augmentations and dropout")

    @property
    def num_epochs(self) -> int:
        """The number of epochs, once `auto` has been resolved by the number of training photos."""
        if self.epochs == "auto":
            raise ValueError("train.epochs is still auto")
        return self.epochs
