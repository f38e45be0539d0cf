"""Owns the torch side of a verification: the same weights in f32, one layer in memory at a time."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from convert import image_encoder, text_embeddings
from convert.checkpoint import Checkpoint
from convert.language_model import LanguageModel, causal_mask, initialise_rotary
from convert.requests import Embeddings, Pixels
from convert.tracing import load, on_meta_device
from convert.weight_cast import WeightCast

_VOCABULARY_CHUNK = 16384  # rows of the lm_head in f32 at a time


def encode_images(checkpoint: Checkpoint, batches: Iterable[Pixels]) -> list[Embeddings]:
    """f32 [n, query_num, hidden] of each batch, f32 [n, 3, height, width]."""
    encoder = image_encoder.build(checkpoint, WeightCast(torch.float32))
    with torch.no_grad():
        return [encoder(torch.from_numpy(pixels)).numpy() for pixels in batches]


def embed_text(checkpoint: Checkpoint, token_ids: NDArray[np.int64]) -> Embeddings:
    """i64 [batch, tokens] -> f32 [batch, tokens, hidden]; only the rows asked for are cast."""
    rows = checkpoint.tensor(text_embeddings.TABLE)[torch.from_numpy(token_ids)]
    scaled: NDArray[np.float32] = (rows.float() * checkpoint.config.scale_emb).numpy()
    return scaled


@torch.no_grad()
def logits(checkpoint: Checkpoint, prompts: Sequence[Embeddings]) -> list[NDArray[np.float32]]:
    """f32 [tokens, vocab] of each prompt, f32 [1, tokens, hidden]; all go through a layer before the next."""
    with on_meta_device():
        granite = LanguageModel(checkpoint.config).granite
    initialise_rotary(granite)
    hidden = [torch.from_numpy(prompt) for prompt in prompts]
    places = [torch.arange(states.shape[1])[None] for states in hidden]
    angles = [granite.model.rotary_emb(states, at) for states, at in zip(hidden, places, strict=True)]
    masks = [causal_mask(torch.ones_like(at), at.shape[1]) for at in places]
    for number, layer in enumerate(granite.model.layers):
        _load(checkpoint, layer, f"llm.model.layers.{number}.")
        hidden = [
            layer(states, attention_mask=mask, position_embeddings=angle)
            for states, mask, angle in zip(hidden, masks, angles, strict=True)
        ]
        layer.to("meta")
    _load(checkpoint, granite.model.norm, "llm.model.norm.")
    return [_head(checkpoint, granite.model.norm(states)[0]) for states in hidden]


def _load(checkpoint: Checkpoint, module: torch.nn.Module, prefix: str) -> None:
    load(module, {name: tensor.float() for name, tensor in checkpoint.tensors(prefix)})


def _head(checkpoint: Checkpoint, hidden: torch.Tensor) -> NDArray[np.float32]:
    weight = checkpoint.tensor("llm.lm_head.weight")
    result = torch.empty(hidden.shape[0], weight.shape[0])
    for begin in range(0, weight.shape[0], _VOCABULARY_CHUNK):
        rows = slice(begin, begin + _VOCABULARY_CHUNK)
        result[:, rows] = hidden @ weight[rows].float().T
    scaled: NDArray[np.float32] = (result / checkpoint.config.logits_scaling).numpy()
    return scaled
