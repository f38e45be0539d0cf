"""A small but real sentencepiece tokenizer with the model's special ids."""

import io
from pathlib import Path

import pytest
import sentencepiece

from service.artifacts import TokenIds
from service.prompt.tokenizer import SentencePieceTokenizer

_KINDS = ("image", "ref", "box", "quad")
_FILLER = 94  # up to id 101

# As in the model's own file: ids 109 to 112 still have their reserved names.
SYMBOLS = (
    ["<SEP>", "<CLS>", "\n", "\t"]
    + [f"<filler_{number}>" for number in range(_FILLER)]
    + [mark for kind in _KINDS for mark in (f"<{kind}>", f"</{kind}>")]
    + [f"<reserved_{number}>" for number in range(20, 27)]
)
_SENTENCES = [
    "a cat on a mat",
    "The image shows two dogs.",
    "What is in the image?",
    "<a> < b > image> box>",
    "你好，请描述这张图片。",
    "用户 用户 <用户> AI <AI> <AI> 用户>",
    "Say it. >< << >>",
    "émigré naïve",
] * 20


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a BPE model of 500 pieces: identity normaliser, byte fallback, no dummy prefix."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(_SENTENCES),
        model_writer=writer,
        model_type="bpe",
        vocab_size=500,
        user_defined_symbols=SYMBOLS,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(writer.getvalue())
    return path


@pytest.fixture(scope="session")
def tokenizer(model_path: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model_path, TokenIds())
