"""Owns the resampler: any number of patches -> query_num image embeddings; knows nothing of pixels.

One cross-attention layer with learned queries (Qwen-VL's, as MiniCPM-V-2 uses it), for one grid of patches.
"""

import torch
from torch import nn
from torch.nn import functional as F

from convert.checkpoint_config import CheckpointConfig

_NORM_EPS = 1e-6
_WAVELENGTH = 10000.0


class Resampler(nn.Module):
    """Learned queries attend to all patches of one image; keys carry their place, values do not."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.num_heads = config.resampler_heads
        self.query = nn.Parameter(torch.empty(config.query_num, hidden))
        self.pos_embed = nn.Parameter(torch.empty(config.query_num, hidden))
        self.kv_proj = nn.Linear(config.vision.hidden_size, hidden, bias=False)
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)
        self.ln_q = nn.LayerNorm(hidden, eps=_NORM_EPS)
        self.ln_kv = nn.LayerNorm(hidden, eps=_NORM_EPS)
        self.ln_post = nn.LayerNorm(hidden, eps=_NORM_EPS)
        self.proj = nn.Linear(hidden, hidden, bias=False)  # the file's `x @ proj`, transposed

    def forward(self, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """f32 [n, rows * columns, vision_width], row-major -> f32 [n, query_num, hidden]."""
        values = self.ln_kv(self.kv_proj(patches))
        keys = values + position_table(rows, columns, values.shape[-1])
        queries = (self.ln_q(self.query) + self.pos_embed).expand(patches.shape[0], -1, -1)
        attended = F.scaled_dot_product_attention(
            self._heads(self.q_proj(queries)),
            self._heads(self.k_proj(keys)),
            self._heads(self.v_proj(values)),
        )
        merged = self.out_proj(attended.transpose(1, 2).flatten(2))
        result: torch.Tensor = self.proj(self.ln_post(merged))
        return result

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)


def position_table(rows: int, columns: int, dim: int) -> torch.Tensor:
    """2-D sin-cos table f32 [rows * columns, dim]: first half of `dim` is the column, second the row.

    Each half is (sin, cos) of position * 10000 ** (-i / (dim / 4)), as in MAE's get_2d_sincos_pos_embed.
    """
    across = _line(columns, dim // 2)[None].expand(rows, -1, -1)
    down = _line(rows, dim // 2)[:, None].expand(-1, columns, -1)
    return torch.cat([across, down], dim=-1).flatten(0, 1)


def _line(length: int, dim: int) -> torch.Tensor:
    exponents = torch.arange(dim // 2, dtype=torch.float32) / (dim / 2)
    frequencies = 1.0 / _WAVELENGTH**exponents
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)  # [length, dim]
