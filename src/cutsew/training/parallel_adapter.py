"""The adapter's forward and backward pass in two parts of the batch, each computed in its own thread.

On a CPU each sum is computed in one thread, since its last bits depend on how many threads share it. So the batch is
cut instead, always into the same two parts: where there are two cores they take half the time, and where there is one
the numbers are the same bit for bit. BatchNorm needs the whole batch; what comes before it is a fifth of the work.
Dropout is drawn for the whole batch by one thread, while another computes what comes before the decoder, in the order
and layout of `Adapter.forward`: it is the same function, with the same draws, up to rounding.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cutsew.method.adapter import Adapter

BEFORE = ("bottleneck.", "project.", "norm.", "position.")
"""Weights of what comes before the decoder, by the beginning of their names."""


class SplitBatchAdapter:
    """An adapter in training mode, called as the adapter is.

    Args:
        adapter: on a CPU.
        pool: threads that each compute alone, as `batching.worker_pool` gives them.

    """

    def __init__(self, adapter: Adapter, pool: ThreadPoolExecutor) -> None:
        self.adapter, self.pool = adapter, pool
        named = list(adapter.named_parameters())
        self.before = [weight for name, weight in named if name.startswith(BEFORE)]
        self.after = [weight for name, weight in named if not name.startswith(BEFORE)]

    def __call__(self, features: Tensor) -> Tensor:
        """Turn grid features, (B, D, H, W) float32, into class logits, (B, C), that take a gradient."""
        logits: Tensor = _Whole.apply(self, features, *self.before, *self.after)  # type: ignore[no-untyped-call]
        return logits


class _Whole(torch.autograd.Function):
    """Both parts as one operation on features and weights; the features take no gradient."""

    @staticmethod
    def forward(ctx: Any, parts: SplitBatchAdapter, features: Tensor, *weights: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        adapter = parts.adapter
        half = -(-len(features) // 2)
        drawn = parts.pool.submit(lambda: list(_masks(adapter, len(features), features[0, 0].numel())))
        with torch.enable_grad():
            memory = _memory(adapter, features)  # draws nothing, so that both can go on at once
            given = [part.detach().requires_grad_() for part in torch.split(memory, half)]
            masks = zip(*(_split(mask, half) for mask in drawn.result()), strict=True)
            result = list(parts.pool.map(lambda part, drawn: _decoded(adapter, part, drawn), given, masks))
        ctx.parts, ctx.memory, ctx.given, ctx.made, ctx.half = parts, memory, given, result, half
        return torch.cat([part.detach() for part in result])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        parts: SplitBatchAdapter = ctx.parts
        result = list(
            parts.pool.map(
                lambda made, given, gradient: torch.autograd.grad(made, [given, *parts.after], gradient),
                ctx.made,
                ctx.given,
                torch.split(gradients[0], ctx.half),
            )
        )
        after = [sum(rest, first) for first, *rest in zip(*(part[1:] for part in result), strict=True)]
        before = torch.autograd.grad(ctx.memory, parts.before, torch.cat([part[0] for part in result]))
        return (None, None, *before, *after)


def _split(mask: Tensor | None, half: int) -> Iterable[Tensor | None]:
    return (None, None) if mask is None else torch.split(mask, half)


def _masks(adapter: Adapter, images: int, cells: int) -> Iterator[Tensor | None]:
    """Draw dropout's factors, 0 or 1 / (1 - p), six for each decoder layer, where torch's own layers draw them."""
    classes, width = adapter.queries.shape
    for layer in _layers(adapter):
        heads, between, p = layer.self_attn.num_heads, layer.linear1.out_features, layer.dropout.p
        attended = torch.empty(classes, images, width).transpose(0, 1)  # torch's attention computes in this layout
        for drawn in (
            torch.empty(images, heads, classes, classes),
            attended,
            torch.empty(images, heads, classes, cells),
            attended,
            torch.empty(images, classes, between),
            torch.empty(images, classes, width),
        ):
            yield None if p == 0 else torch.empty_like(drawn).bernoulli_(1 - p).div_(1 - p).contiguous()


def _memory(adapter: Adapter, features: Tensor) -> Tensor:
    """Compute what the decoder attends to, (B, H * W, width), with products of rows instead of 1x1 convolutions."""
    images, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
    down, up = adapter.bottleneck.down, adapter.bottleneck.up.weight.flatten(1)
    narrow = functional.relu(functional.linear(rows, down.weight.flatten(1), down.bias))
    rows = 0.5 * functional.linear(narrow, up) + 0.5 * rows
    rows = functional.linear(rows, adapter.project.weight.flatten(1))
    rows = adapter.norm(rows[:, :, None, None]).flatten(1)
    memory: Tensor = rows.view(images, height * width, -1) + adapter.position(height, width)
    return memory


def _decoded(adapter: Adapter, memory: Tensor, masks: Iterable[Tensor | None]) -> Tensor:
    """Decode a part of the batch: (b, H * W, width) to (b, C) logits."""
    drawn, images = iter(masks), len(memory)
    last = cast(nn.LayerNorm, adapter.decoder.norm)
    x = adapter.queries[None]  # the same for all images up to the first dropout
    for layer in _layers(adapter):
        weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
        q, k, v = functional.linear(x, weight, bias).chunk(3, dim=-1)
        x = layer.norm1(x + _attended(layer.self_attn, q, k, v, images, next(drawn), next(drawn)))
        weight, bias = layer.multihead_attn.in_proj_weight, layer.multihead_attn.in_proj_bias
        width = x.shape[-1]
        q = functional.linear(x, weight[:width], bias[:width])
        k, v = functional.linear(memory, weight[width:], bias[width:]).chunk(2, dim=-1)
        x = layer.norm2(x + _attended(layer.multihead_attn, q, k, v, images, next(drawn), next(drawn)))
        between = _dropped(layer.activation(layer.linear1(x)), next(drawn))
        x = layer.norm3(x + _dropped(layer.linear2(between), next(drawn)))
    logits: Tensor = adapter.read_out(functional.layer_norm(x, x.shape[-1:], last.weight, last.bias, last.eps))
    return logits


def _attended(
    attention: nn.MultiheadAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    images: int,
    attention_mask: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """Attend with all heads, and project: q (b, C, width), k and v (b, n, width) to (b, C, width)."""
    q, k, v = (torch.unflatten(x, -1, (attention.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1)
    read = (_dropped(weights, attention_mask) @ v).transpose(1, 2).flatten(2)
    return _dropped(attention.out_proj(read.expand(images, -1, -1)), mask)


def _dropped(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _layers(adapter: Adapter) -> Iterable[nn.TransformerDecoderLayer]:
    return cast(Iterable[nn.TransformerDecoderLayer], adapter.decoder.layers)
