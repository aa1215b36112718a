"""The trained head on frozen grid features: bottleneck, decoder with one query per class, class-wise output."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

MAX_GRID = 50
"""Rows and columns that have a position embedding where the grid is not larger (the released code's number)."""


class Bottleneck(nn.Module):
    """Parameter-sharing bottleneck f_b (Eq. 15): half the features, half what two 1x1 convolutions make of them.

    What follows it up to the adapter's BatchNorm is linear, so a bias of the second convolution would change nothing
    but have a gradient of rounding noise, which AdamW turns into a random walk: there is none.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.down = nn.Conv2d(channels, narrow, 1)
        self.up = nn.Conv2d(narrow, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, D, H, W) to the same shape."""
        changed: Tensor = self.up(functional.relu(self.down(features)))
        return 0.5 * changed + 0.5 * features


class GridPosition(nn.Module):
    """Learned position embedding: half the width from the column, half from the row."""

    def __init__(self, width: int, max_grid: int) -> None:
        super().__init__()
        self.column = nn.Parameter(torch.rand(max_grid, width // 2))
        self.row = nn.Parameter(torch.rand(max_grid, width - width // 2))

    def forward(self, height: int, width: int) -> Tensor:
        """Give the embeddings of a grid, (1, height * width, channels), in row-major order."""
        column = self.column[:width].expand(height, width, -1)
        row = self.row[:height, None].expand(height, width, -1)
        return torch.cat([column, row], dim=-1).flatten(0, 1)[None]


class Adapter(nn.Module):
    """The adapter (Eq. 14-16): f_b, f_d with C learned queries, f_l with one weight row and bias per class.

    With 2048 channels, 20 classes and the defaults it has 2,391,700 parameters (released code: 2.39 M).

    Args:
        channels: D, of the grid features.
        classes: C.
        reduction: bottleneck reduction ratio.
        width: of the decoder; divisible by `heads`.
        layers: decoder layers (post-norm, leaky ReLU).
        heads: attention heads.
        feedforward: width of the decoder's feed-forward layers.
        dropout: in the decoder, in [0, 1).
        query_group: most queries that attend to each other. The paper has one group of all; of more classes, groups of
            consecutive classes and nearly equal size are decoded one after another, and in training each is decoded
            again for its gradient, so that the activations of one group are held at a time.
        max_grid: largest number of rows or columns of the grid.

    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        reduction: int = 16,
        width: int = 256,
        layers: int = 2,
        heads: int = 8,
        feedforward: int = 256,
        dropout: float = 0.1,
        query_group: int = 512,
        max_grid: int = MAX_GRID,
    ) -> None:
        super().__init__()
        self.max_grid = max_grid
        self.num_groups = -(-classes // query_group)
        self.bottleneck = Bottleneck(channels, reduction)
        self.project = nn.Conv2d(channels, width, 1, bias=False)  # BatchNorm takes any bias away again
        self.norm = nn.BatchNorm2d(width)
        self.position = GridPosition(width, max_grid)
        self.queries = nn.Parameter(torch.randn(classes, width))
        layer = nn.TransformerDecoderLayer(
            width, heads, feedforward, dropout, activation=functional.leaky_relu, batch_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(width))
        for weight in self.decoder.parameters():
            if weight.dim() > 1:  # the layers are copies of one: initialize each separately
                nn.init.xavier_uniform_(weight)
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(classes, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(classes).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """Turn grid features into class logits.

        Args:
            features: (B, D, H, W) float32, H and W at most `max_grid`.

        Returns:
            (B, C) float32 logits.

        Raises:
            ValueError: the grid is larger than `max_grid`.

        """
        return self.read_out(self.decode(features))

    def pool(self, features: Tensor) -> Tensor:
        """Describe images by the mean of their decoded classes, each weighted by its probability.

        Args:
            features: as of `forward`.

        Returns:
            (B, width) float32.

        """
        decoded = self.decode(features)
        weights = functional.logsigmoid(self.read_out(decoded)).softmax(dim=1)  # p_c / sum of p, also where all are 0
        return (weights.unsqueeze(-1) * decoded).sum(dim=1)

    def decode(self, features: Tensor) -> Tensor:
        """Turn grid features as of `forward` into the decoder's answers to the class queries, (B, C, width) float32."""
        height, width = features.shape[2:]
        if max(height, width) > self.max_grid:
            raise ValueError(f"grid {height} x {width} is larger than this adapter's {self.max_grid} x {self.max_grid}")
        memory = self.norm(self.project(self.bottleneck(features))).flatten(2).transpose(1, 2)
        memory = memory + self.position(height, width)
        groups = [group.expand(features.shape[0], -1, -1) for group in self.queries.tensor_split(self.num_groups)]
        if len(groups) == 1:
            decoded: Tensor = self.decoder(groups[0], memory)
            return decoded
        return torch.cat([checkpoint(self.decoder, group, memory, use_reentrant=False) for group in groups], dim=1)

    def read_out(self, decoded: Tensor) -> Tensor:
        """Turn the decoder's answers, (B, C, width), into logits, (B, C)."""
        logits: Tensor = (decoded * self.weight).sum(-1) + self.bias
        return logits
