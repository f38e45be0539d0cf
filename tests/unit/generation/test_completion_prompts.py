"""Prompts of every form to ids, and what an echo shows of them."""

from typing import Any

import pytest

from service.errors import ContextLengthError, InvalidValueError
from service.generation.completion_prompts import CompletionPrompt, CompletionPrompts
from service.protocol.completion_request import CompletionRequest
from tests.conformance.scripted_service import FIRST_BYTE, TOKEN_IDS, VOCAB_SIZE, ByteTokenizer

BOS, EOS = TOKEN_IDS.bos, TOKEN_IDS.eos


async def _read(prompt: Any, max_model_len: int = 512) -> tuple[CompletionPrompt, ...]:
    request = CompletionRequest.model_validate({"prompt": prompt})
    return await CompletionPrompts(ByteTokenizer(), TOKEN_IDS, VOCAB_SIZE, max_prompts=3).read(
        request, max_model_len
    )


@pytest.mark.parametrize(
    ("prompt", "texts", "token_ids"),
    [
        ("A", ["A"], [[BOS, FIRST_BYTE + 65]]),
        ("", [""], [[BOS]]),
        (["A", ""], ["A", ""], [[BOS, FIRST_BYTE + 65], [BOS]]),
        ([FIRST_BYTE + 65], ["A"], [[FIRST_BYTE + 65]]),
        ([BOS], [""], [[BOS]]),
        ([BOS, BOS, EOS], ["<1><2>"], [[BOS, BOS, EOS]]),
        ([[EOS], [BOS, FIRST_BYTE + 0xE4]], ["<2>", "\ufffd"], [[EOS], [BOS, FIRST_BYTE + 0xE4]]),
    ],
)
async def test_texts_get_bos_and_ids_stay_what_they_are(
    prompt: Any, texts: list[str], token_ids: list[list[int]]
) -> None:
    prompts = await _read(prompt)
    assert [one.text for one in prompts] == texts
    assert [one.token_ids.tolist() for one in prompts] == token_ids
    assert all(one.rendered.token_ids is one.token_ids and not one.rendered.image_slots for one in prompts)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([VOCAB_SIZE], "prompt[0]"),
        ([[5], [5, VOCAB_SIZE]], "prompt[1][1]"),
        ([BOS, TOKEN_IDS.pad], "prompt[1]"),
        ([[TOKEN_IDS.image_start]], "prompt[0][0]"),
        ([TOKEN_IDS.slice_end], "prompt[0]"),
        (["x"] * 4, "prompt"),
    ],
)
async def test_ids_of_images_and_of_nothing_and_too_many_prompts_are_refused(prompt: Any, param: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        await _read(prompt)
    assert caught.value.param == param


async def test_ids_of_marks_in_an_image_are_taken() -> None:
    marks = [TOKEN_IDS.ref_start, TOKEN_IDS.box_start, TOKEN_IDS.quad_end, TOKEN_IDS.point_end]
    assert (await _read(marks))[0].token_ids.tolist() == marks


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ("x" * 161, "prompt"),
        (["x", "x" * 161], "prompt[1]"),
        ([5] * 11, "prompt"),
        ([[5], [VOCAB_SIZE] * 11], "prompt[1]"),
    ],
)
async def test_what_can_never_fit_is_not_looked_at(prompt: Any, param: str) -> None:
    assert len(await _read("x" * 160, max_model_len=10)) == 1
    with pytest.raises(ContextLengthError) as caught:
        await _read(prompt, max_model_len=10)
    assert caught.value.param == param
