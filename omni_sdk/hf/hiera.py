"""A block of SAM 2's image encoder (Hiera), rewritten so that engines do less for the same numbers.

Note [Exact rewrites of a windowed block]
    Upstream pads the grid to whole windows first and projects after: at 512 px, windows of 14 on a grid
    of 32 make 1,764 tokens of 1,024. Here the tokens that exist are projected, and what the padding
    would have become is put in: a token of zeros has the bias as its key and value.
    - A key's bias adds q.b to every score of a query, which a softmax does not see: it is dropped, so that
      padded keys are zeros.
    - The rows of a softmax sum to 1, so a value's bias adds itself to every output: it is moved into the
      bias of the projection after, so that padded values are zeros.
    - What padded queries give is thrown away, so the projection after runs on the tokens that exist.
    The cells that queries are pooled over (2 x 2) never mix real and padded tokens on a grid of even
    sides, so pooling comes before the windows. Queries are scaled in their weights. Queries, keys and
    values are three products, each moved once into the order that attention reads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock, do_pool

from omni_sdk.errors import BundleError


class HieraBlock(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """(1, H, W, C) -> (1, H', W', C'): H and W halve where the block pools its queries.

    Args:
        block: holds the weights; they are copied.

    Raises:
        BundleError: the block pools queries by something else than 2 x 2.
    """

    def __init__(self, block: Sam2MultiScaleBlock) -> None:
        super().__init__()
        attention = block.attn
        self.stride = block.query_stride
        if self.stride is not None and tuple(self.stride) != (2, 2):
            raise BundleError(f"SAM 2 image encoder: query stride {self.stride}, expected 2 x 2")
        self.window = int(block.window_size)
        self.heads = int(attention.num_attention_heads)
        self.norm1, self.norm2, self.mlp = block.layer_norm1, block.layer_norm2, block.mlp
        self.skip = block.proj if block.dim != block.dim_out else None
        with torch.no_grad():
            q, k, v = attention.qkv.weight.chunk(3)
            q_bias, _, v_bias = attention.qkv.bias.chunk(3)
            self.q = _linear(q * attention.scale, q_bias * attention.scale)
            self.k, self.v = _linear(k), _linear(v)
            proj = attention.proj
            self.out = _linear(proj.weight, proj.bias + proj.weight @ v_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        height, width = x.shape[1:3]
        y = self.norm1(x)
        residual = x if self.skip is None else do_pool(self.skip(y), self.stride)
        window, q = self.window, self.q(y)
        if self.stride is not None:
            if height % 2 or width % 2:
                raise ValueError(f"expected a grid of even sides to pool, got {height} x {width}")
            q, window = do_pool(q, self.stride), window // 2
        mixed = self._attend(
            self._split(q, window),
            self._split(self.k(y), self.window),
            self._split(self.v(y), self.window),
        )
        size = (int(q.shape[1]), int(q.shape[2]))
        x = residual + self.out(self._join(mixed, window, size))
        return x + self.mlp(self.norm2(x))

    def _split(self, x: Tensor, window: int) -> Tensor:
        """(1, H, W, C) -> (windows, heads, tokens of a window, C / heads); one window where `window` is 0."""
        height, width, channels = (int(n) for n in x.shape[1:])
        dim = channels // self.heads
        if not window:
            return x.reshape(1, height * width, self.heads, dim).transpose(1, 2)
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        rows, columns = -(-height // window), -(-width // window)
        x = x.reshape(rows, window, columns, window, self.heads, dim).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(rows * columns, self.heads, window * window, dim)

    def _join(self, x: Tensor, window: int, size: tuple[int, int]) -> Tensor:
        """Undo `_split` for a grid of `size`."""
        height, width = size
        dim = int(x.shape[-1])
        if not window:
            return x.transpose(1, 2).reshape(1, height, width, self.heads * dim)
        rows, columns = -(-height // window), -(-width // window)
        x = x.reshape(rows, columns, self.heads, window, window, dim).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(1, rows * window, columns * window, self.heads * dim)
        return x[:, :height, :width]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(-1, -2), -1) @ v


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer
