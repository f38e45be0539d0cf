"""Owns the model as it is trained: modules whose state_dict has the published checkpoint's names and shapes.

Same arithmetic as convert's graphs (tests/unit/demo_model compares them), but for batches of slices of any
shape, padded; and for attention that trains fast on a CPU.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convert.checkpoint_config import CheckpointConfig
from convert.resampler import position_table

Grid = tuple[int, int]  # (rows, columns) of patches
_HIDDEN = float("-inf")


class VisionBlock(nn.Module):
    """timm's pre-norm transformer block."""

    def __init__(self, width: int, heads: int, intermediate: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, intermediate), "fc2": nn.Linear(intermediate, width)}
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.attn["proj"](attend(q, k, v, bias).transpose(1, 2).flatten(2))
        result: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return result


class PatchEmbed(nn.Module):
    """The convolution that makes patches, as one matrix product."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, patches: Tensor) -> Tensor:
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class VisionTower(nn.Module):
    """Patches of many slices, padded to one length -> their features."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        vision = config.vision
        self.side = vision.table_side
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2, vision.hidden_size))
        self.patch_embed = PatchEmbed(vision.hidden_size, vision.patch_size)
        self.blocks = nn.ModuleList(
            VisionBlock(vision.hidden_size, vision.num_attention_heads, vision.intermediate_size)
            for _ in range(vision.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(vision.hidden_size, eps=1e-6)

    def forward(self, patches: Tensor, grids: list[Grid], bias: Tensor) -> Tensor:
        """f32 [n, t, 3 * patch * patch], a mask f32 [n, 1, 1, t] -> [n, t, width]."""
        x = self.patch_embed(patches)
        tables = torch.stack([_resizing(self.side, grid, patches.shape[1]) for grid in grids])
        x = x + tables @ self.pos_embed[0]
        for block in self.blocks:
            x = block(x, bias)
        result: Tensor = self.norm(x)
        return result


class ResamplerAttention(nn.Module):
    """The weights of torch's MultiheadAttention under its names."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.out_proj = nn.Linear(hidden, hidden)


class Resampler(nn.Module):
    """Learned queries attend to the patches of one slice."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.resampler_heads
        self.query = nn.Parameter(torch.zeros(config.query_num, hidden))
        self.pos_embed = nn.Parameter(torch.zeros(config.query_num, hidden))
        self.kv_proj = nn.Linear(config.vision.hidden_size, hidden, bias=False)
        self.attn = ResamplerAttention(hidden)
        self.ln_q = nn.LayerNorm(hidden, eps=1e-6)
        self.ln_kv = nn.LayerNorm(hidden, eps=1e-6)
        self.ln_post = nn.LayerNorm(hidden, eps=1e-6)
        self.proj = nn.Parameter(torch.empty(hidden, hidden))

    def forward(self, features: Tensor, grids: list[Grid], bias: Tensor) -> Tensor:
        """[n, t, vision width], a mask f32 [n, 1, 1, t] -> [n, query_num, hidden]."""
        values = self.ln_kv(self.kv_proj(features))
        keys = values + torch.stack([_key_table(g, features.shape[1], values.shape[-1]) for g in grids])
        queries = (self.ln_q(self.query) + self.pos_embed).expand(len(grids), -1, -1)
        (wq, wk, wv), (bq, bk, bv) = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        q, k, v = (
            self._split(F.linear(x, w, b))
            for x, w, b in ((queries, wq, bq), (keys, wk, bk), (values, wv, bv))
        )
        merged = self.attn.out_proj(attend(q, k, v, bias).transpose(1, 2).flatten(2))
        result: Tensor = self.ln_post(merged) @ self.proj
        return result

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class RmsNorm(nn.Module):
    """Root-mean-square normalisation with a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class DecoderLayer(nn.Module):
    """Granite's layer: residual branches scaled."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.scale = config.residual_multiplier
        self.input_layernorm = RmsNorm(hidden, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(hidden, config.rms_norm_eps)
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(hidden, hidden, bias=False) for name in names})
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(hidden, inner, bias=False),
                "up_proj": nn.Linear(hidden, inner, bias=False),
                "down_proj": nn.Linear(inner, hidden, bias=False),
            }
        )

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, bias: Tensor) -> Tensor:
        n, t, _ = x.shape
        normed = self.input_layernorm(x)
        q, k, v = (
            self.self_attn[name](normed).reshape(n, t, self.heads, -1).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        attended = attend(_rotate(q, cosine, sine), _rotate(k, cosine, sine), v, bias)
        x = x + self.self_attn["o_proj"](attended.transpose(1, 2).flatten(2)) * self.scale
        normed = self.post_attention_layernorm(x)
        gated = F.silu(self.mlp["gate_proj"](normed)) * self.mlp["up_proj"](normed)
        result: Tensor = x + self.mlp["down_proj"](gated) * self.scale
        return result


class Decoder(nn.Module):
    """What the checkpoint calls llm.model."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """Embeddings in, logits of chosen positions out."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def embed(self, token_ids: Tensor) -> Tensor:
        """i64 [...] -> [..., hidden], scaled."""
        embedded: Tensor = self.model.embed_tokens(token_ids) * self.config.scale_emb
        return embedded

    def forward(self, embeddings: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """[n, t, hidden], padded at the right; bool [n, t] -> (logits [chosen, vocab], what the layers in the
        middle hold [n, t, hidden])."""
        length = embeddings.shape[1]
        cosine, sine = _rotary(length, self.config.head_dim, self.config.rope_theta)
        bias = torch.full((length, length), _HIDDEN).triu(1)
        x = middle = embeddings
        for number, layer in enumerate(self.model.layers):
            x = layer(x, cosine, sine, bias)
            if number == len(self.model.layers) // 2:
                middle = x
        logits: Tensor = self.lm_head(self.model.norm(x[chosen])) / self.config.logits_scaling
        return logits, middle


class Network(nn.Module):
    """All three parts; its state_dict is the checkpoint."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.config = config
        self.vpm = VisionTower(config)
        self.resampler = Resampler(config)
        self.llm = LanguageModel(config)

    def see(self, patches: Tensor, grids: list[Grid]) -> tuple[Tensor, Tensor]:
        """f32 [n, t, 3 * patch * patch], padded -> ([n, t, width], [n, query_num, hidden])."""
        lengths = torch.tensor([rows * columns for rows, columns in grids])
        hidden = torch.arange(patches.shape[1])[None] >= lengths[:, None]
        bias = torch.zeros(hidden.shape).masked_fill(hidden, _HIDDEN)[:, None, None]
        features = self.vpm(patches, grids, bias)
        return features, self.resampler(features, grids, bias)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention of [n, heads, t, d] with an additive mask, in two matmuls: the fastest backward on a CPU."""
    with torch.autocast("cpu", enabled=False):  # which would widen the softmax
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias.to(q.dtype)
        result: Tensor = scores.softmax(-1) @ v.to(scores.dtype)
        return result


def initialise(network: Network, seed: int, query_span: float) -> None:
    """Start values. The resampler starts local: queries and keys near identity, queries over the patches."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "fc2.weight")):
                parameter.mul_(0.5)  # every branch adds little at first
        conv = network.vpm.patch_embed.proj
        nn.init.normal_(conv.weight, std=1 / math.sqrt(conv.weight[0].numel()))
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        nn.init.normal_(network.vpm.pos_embed, std=0.3)
        network.vpm.pos_embed.add_(_place_waves(network.vpm.side, network.vpm.pos_embed.shape[-1]))
        nn.init.normal_(network.llm.model.embed_tokens.weight, std=0.04)
        network.llm.lm_head.weight.mul_(0.5)
        _initialise_resampler(network.resampler, query_span)


def _initialise_resampler(resampler: Resampler, span: float) -> None:
    hidden = resampler.proj.shape[0]
    nn.init.normal_(resampler.proj, std=1 / math.sqrt(hidden))
    nn.init.normal_(resampler.query, std=0.02)
    wq, wk, wv = resampler.attn.in_proj_weight.chunk(3)
    for weight, gain in ((wq, 1.6), (wk, 1.6)):
        weight.copy_(gain * torch.eye(hidden) + torch.randn(hidden, hidden) * 0.02)
    nn.init.normal_(wv, std=1 / math.sqrt(hidden))
    # each head holds half of the dimensions, the columns' waves or the rows': shuffle, so that both hold both
    order = torch.arange(hidden).reshape(2, hidden // 4, 2).permute(2, 0, 1).flatten()
    wq.copy_(wq[order])
    wk.copy_(wk[order])
    side = math.isqrt(resampler.query.shape[0])
    centres = (torch.arange(side) + 0.5) * span / side - 0.5
    resampler.pos_embed.copy_(_waves_at(centres, hidden))
    resampler.ln_q.weight.fill_(0.1)


def _waves_at(centres: Tensor, hidden: int) -> Tensor:
    """The key's table at fractional rows and columns: [side * side, hidden]."""
    quarter = hidden // 4
    frequencies = 10000.0 ** (-torch.arange(quarter) / quarter)
    angles = centres[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=-1)
    side = len(centres)
    across = line[None].expand(side, -1, -1)
    down = line[:, None].expand(-1, side, -1)
    return torch.cat([across, down], dim=-1).flatten(0, 1)


def _place_waves(side: int, width: int) -> Tensor:
    """Slow waves over the whole image: the place is in the tower's values from the start."""
    at = (torch.arange(side) + 0.5) / side
    waves = torch.stack([f(math.pi * n * at) for n in (1, 2, 3, 4) for f in (torch.sin, torch.cos)], dim=-1)
    grid = torch.cat([waves[None].expand(side, -1, -1), waves[:, None].expand(-1, side, -1)], dim=-1)
    flat = grid.flatten(0, 1)
    mixing = torch.randn(flat.shape[-1], width) / math.sqrt(flat.shape[-1])
    result: Tensor = 0.5 * flat @ mixing
    return result


@cache
def _resizing(side: int, grid: Grid, length: int) -> Tensor:
    """The position table's resizing to a grid as a matrix, padded: f32 [length, side * side]."""
    table = torch.eye(side**2)
    if grid != (side, side):
        image = table.reshape(1, side, side, side**2).permute(0, 3, 1, 2)
        image = F.interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
        table = image.permute(0, 2, 3, 1).reshape(-1, side**2)
    return F.pad(table, (0, 0, 0, length - len(table)))


@cache
def _key_table(grid: Grid, length: int, hidden: int) -> Tensor:
    table = position_table(*grid, hidden)
    return F.pad(table, (0, 0, 0, length - len(table)))


@cache
def _rotary(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    frequencies = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.arange(length)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned: Tensor = x * cosine.to(x.dtype) + torch.cat([-second, first], dim=-1) * sine.to(x.dtype)
    return turned
