"""The small vocabulary has the published one's traits."""

import pytest
import sentencepiece

from convert.vocabulary import train_vocabulary

SIZE = 1024


@pytest.fixture(scope="module")
def vocabulary() -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(train_vocabulary(SIZE))
    return processor


def test_same_every_time() -> None:
    assert train_vocabulary(SIZE) == train_vocabulary(SIZE)


def test_ids_that_mean_something_are_the_published_ones(
    vocabulary: sentencepiece.SentencePieceProcessor,
) -> None:
    names = {0: "<unk>", 1: "<s>", 2: "</s>", 5: "\n", 6: "\t", 101: "<image>", 102: "</image>"}
    names |= {103: "<ref>", 104: "</ref>", 105: "<box>", 106: "</box>", 107: "<quad>", 108: "</quad>"}
    names |= {109: "<reserved_20>", 110: "<reserved_21>", 111: "<reserved_22>", 112: "<reserved_23>"}
    assert {i: vocabulary.IdToPiece(i) for i in names} == names
    assert vocabulary.vocab_size() == SIZE


@pytest.mark.parametrize(
    "text",
    [
        "What is in the image?",
        " leading, trailing  and   double spaces ",
        "\n\n\ttabs and lines\n",
        "12345",
        "图片里有什么？",
        "zażółć 🐝 \u200b",
    ],
)
def test_text_comes_back_as_it_was(vocabulary: sentencepiece.SentencePieceProcessor, text: str) -> None:
    assert vocabulary.DecodeIds(vocabulary.EncodeAsIds(text)) == text


def test_no_dummy_prefix_digits_alone_and_bytes_for_the_unknown(
    vocabulary: sentencepiece.SentencePieceProcessor,
) -> None:
    assert vocabulary.EncodeAsPieces("the")[0] != "▁the"
    assert vocabulary.EncodeAsPieces("2024") == ["2", "0", "2", "4"]
    assert vocabulary.EncodeAsPieces("🐝") == ["<0xF0>", "<0x9F>", "<0x90>", "<0x9D>"]


def test_role_marks_are_ordinary_pieces(vocabulary: sentencepiece.SentencePieceProcessor) -> None:
    assert vocabulary.EncodeAsPieces("<用户>") == ["<", "用户", ">"]
    assert vocabulary.EncodeAsPieces("<AI>") == ["<", "AI", ">"]
    assert min(vocabulary.EncodeAsIds("<用户><AI>")) > 112


def test_pieces_beyond_the_trained_decode_but_are_never_encoded() -> None:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(train_vocabulary(3000))
    assert processor.vocab_size() == 3000
    assert processor.DecodeIds([2999]) == " w2999"
    assert max(processor.EncodeAsIds(" w2999 w1500")) < 1000
