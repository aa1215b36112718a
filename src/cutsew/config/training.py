"""Settings of the student's head and its training (paper, Eq. 14-20), one model per head."""

from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from cutsew.config.base import (
    Fraction,
    OneOf,
    Section,
    Size,
)


class AdapterConfig(Section):
    """The trained part of the student (Eq. 14-16)."""

    reduction: Size = Field(16, description="bottleneck reduction ratio")
    width: Size = Field(256, description="width of the decoder")
    layers: Size = Field(2, description="decoder layers")
    heads: Size = Field(8, description="attention heads")
    feedforward: Size = Field(256, description="width of the decoder's feed-forward layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the decoder")
    query_group: Size = Field(
        512,
        description="most class queries that attend to each other; more are split into groups of consecutive classes, "
        "so that memory grows with the classes and not with their square (the paper: all, 80 classes at most)",
    )


class TrainingConfig(Section):
    """What the training of both heads has in common."""

    head: str
    labels: Literal["pseudo", "fused", "zero_shot"] = Field("pseudo", description="initial training labels")
    seed: int = Field(9, description="seed of weight initialization, order, overlays, augmentations and dropout")


class AdapterTrainingConfig(TrainingConfig):
    """Interactive cutting and sewing (Eq. 14-20, Algorithm 1)."""

    head: Literal["adapter"] = Field(
        "adapter", description="the paper's adapter on the backbone's grid features, trained by EM"
    )
    adapter: AdapterConfig = Field(default_factory=AdapterConfig, description="the trained head (Eq. 14-16)")
    epochs: Size | Literal["auto"] = Field(
        1, description="passes over the training images; auto: as many as needed for at least 800 steps"
    )
    batch_size: Size = Field(16, description="images per step")
    lr_adapter: float = Field(1e-3, gt=0, description="learning rate of the adapter")
    lr_decoder: float | None = Field(
        None, gt=0, description="learning rate of the adapter's decoder; null uses lr_adapter"
    )
    lr_estimator: float = Field(1e-2, gt=0, description="learning rate of the pseudo-labels in the E-step")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay, for all parameter groups")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="constant is the paper's; cosine decays to 0"
    )
    warmup: Fraction = Field(0.0, description="fraction of the steps for linear warmup from 0")
    strong_weight: float = Field(
        0.0, ge=0, description="weight of the loss on a flipped, RandAugmented view (released code: 0.7)"
    )
    em_weight: float = Field(1.0, ge=0, description="weight of the E-step's loss (Eq. 19); 0 keeps the labels fixed")
    correct_refined: bool = Field(False, description="apply the correction again after training (released code)")

    @property
    def num_epochs(self) -> int:
        """The number of epochs, once `auto` has been resolved by the number of training images."""
        if self.epochs == "auto":
            raise ValueError("train.epochs is still auto")
        return self.epochs

    @model_validator(mode="after")
    def heads_divide_the_width(self) -> Self:
        """Refuse attention heads that do not divide the decoder's width."""
        if self.adapter.width % self.adapter.heads:
            raise ValueError(f"adapter.heads {self.adapter.heads} does not divide adapter.width {self.adapter.width}")
        return self


class LinearTrainingConfig(TrainingConfig):
    """Training of a linear head (not the paper's): it learns from the labels as they are, without an E-step."""

    head: Literal["linear"] = Field(
        "linear",
        description="class-specific residual attention on the backbone's grid features, in a fraction of the time (not "
        "the paper's)",
    )
    steps: Size = Field(800, description="optimizer steps, with cosine decay of the learning rate to 0")
    batch_size: Size = Field(64, description="images per step")
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="AdamW's learning rate; auto chooses one of `rates` without labels: heads trained on one half "
        "of the images are evaluated on the other half",
    )
    rates: list[Annotated[float, Field(gt=0)]] = Field(
        [3e-4, 1e-3, 3e-3], min_length=1, description="learning rates that `lr: auto` tries"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay, for all parameter groups")
    sewn_epochs: Size = Field(
        8, description="epochs of sewn images whose features are computed; the steps cycle through them"
    )


Train = Annotated[AdapterTrainingConfig | LinearTrainingConfig, OneOf("head")]
"""The student's head and its training, by `train.head`."""


parse_train = TypeAdapter[Train](Train).validate_python
"""Return the settings of a training from a mapping."""
