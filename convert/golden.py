"""Owns the golden tokens: the greedy answer of a variant's own graphs to the fixed request."""

from pathlib import Path

import numpy as np

from convert.requests import GOLDEN, golden_request
from convert.variant_run import ImageEncoderRun, LanguageModelRun, TextEmbeddingsRun
from service.artifacts import ModelConfig
from service.mapped_pages import pages_returned
from service.prompt.tokenizer import SentencePieceTokenizer


def golden_tokens(
    model: ModelConfig, tokenizer: Path, image_encoder: Path, text_embeddings: Path, language_model: Path
) -> tuple[int, ...]:
    """At most GOLDEN.max_tokens ids, f32 inference, stateful; ends early with (and includes) eos."""
    request = golden_request(model, SentencePieceTokenizer(tokenizer, model.token_ids))
    embed_text = TextEmbeddingsRun(text_embeddings)
    prompt = request.embed(embed_text, ImageEncoderRun(image_encoder))
    with pages_returned(language_model.parent):
        language = LanguageModelRun(language_model)
        logits = language.start(prompt)
    tokens: list[int] = []
    while True:
        tokens.append(int(logits[-1].argmax()))
        if len(tokens) == GOLDEN.max_tokens or tokens[-1] == model.token_ids.eos:
            return tuple(tokens)
        logits = language.step(embed_text(np.array([[tokens[-1]]])))
