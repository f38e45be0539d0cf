"""Marks never show; what they mean is told to who asks, whole and streamed alike."""

from collections.abc import AsyncGenerator, Iterable
from itertools import zip_longest
from typing import Any

import httpx
import pytest
from openai import OpenAI

from service.engine.token_events import EngineRequest, TokenEvent
from tests.conformance.scripted_service import FIRST_BYTE, MODEL, TOKEN_IDS, ScriptedService
from tests.conformance.wire import CHAT, ask, events_of, image_part, png

_BOX = (TOKEN_IDS.box_start, "100 0 500 1000", TOKEN_IDS.box_end)
ANSWER = (
    "A ",
    TOKEN_IDS.ref_start,
    "cät",
    TOKEN_IDS.ref_end,
    *_BOX,
    " sat.",
    TOKEN_IDS.box_start,
    "1",
    *_BOX,
)
CAT = {"label": "cät", "type": "box", "per_mille": [100, 0, 500, 1000]}
NAMELESS = CAT | {"label": None}
PIXELS = {"image_index": 0, "pixels": [3.2, 0.0, 16.0, 24.0]}
UNKNOWN = {"image_index": None, "pixels": None}


def _ids(answer: Iterable[int | str]) -> list[int]:
    ids: list[int] = []
    for item in answer:
        ids += [item] if isinstance(item, int) else [FIRST_BYTE + byte for byte in item.encode()]
    return ids


@pytest.fixture
def marking(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> ScriptedService:
    """The engine answers ANSWER, a token an event."""
    ids = _ids(ANSWER)

    async def stream(request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        for token_id in ids:
            yield TokenEvent(request.request_id, (token_id,))
        yield TokenEvent(request.request_id, (TOKEN_IDS.eos,), "stop", TOKEN_IDS.eos)

    monkeypatch.setattr(service.engine, "stream", stream)
    return service


_OTHER_BOX = (TOKEN_IDS.box_start, "250 500 750 1000", TOKEN_IDS.box_end)
CHOICES = (
    _ids(("A ", *_BOX)),
    _ids((TOKEN_IDS.ref_start, "dog", TOKEN_IDS.ref_end, *_OTHER_BOX, *_BOX, "B.")),
)


async def _choices_mixed(request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
    """CHOICES, each a token at a time and in turn, the marks of one inside those of the other."""
    for pair in zip_longest(*CHOICES):
        for index, token_id in enumerate(pair):
            if token_id is not None:
                yield TokenEvent(request.request_id, (token_id,), index=index)
    for index in range(2):
        eos = TOKEN_IDS.eos
        yield TokenEvent(request.request_id, (eos,), "stop", eos, index=index, others_run=index == 0)


async def _beams_whole(request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
    """CHOICES, each in one event."""
    for index, ids in enumerate(CHOICES):
        eos = TOKEN_IDS.eos
        yield TokenEvent(request.request_id, (*ids, eos), "stop", eos, index=index, others_run=index == 0)


def _message(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The message, after checking that a stream says the same."""
    message: dict[str, Any] = http.post(CHAT, json=body).json()["choices"][0]["message"]
    chunks = events_of(http.post(CHAT, json=body | {"stream": True}).content)[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    told = [delta["grounding"] for delta in deltas if "grounding" in delta]
    assert told == ([message["grounding"]] if "grounding" in message else [])
    assert deltas[-1] == {}, "the finish reason stands alone"
    if told:
        assert "grounding" in deltas[-2]
    return message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([image_part(png(32, 24)), "?"], [CAT | PIXELS, NAMELESS | PIXELS]),
        ([image_part(), image_part(), "?"], [CAT | UNKNOWN, NAMELESS | UNKNOWN]),
        (["?"], []),
    ],
    ids=["one", "two", "none"],
)
@pytest.mark.usefixtures("marking")
def test_regions_are_told_beside_the_text(http: httpx.Client, content: list[Any], expected: Any) -> None:
    message = _message(http, ask(*content, grounding=True))
    assert message["content"] == "A cät sat."
    assert message["grounding"] == expected


@pytest.mark.parametrize("fields", [{}, {"grounding": False}, {"grounding": None}])
@pytest.mark.usefixtures("marking")
def test_nobody_else_sees_them(http: httpx.Client, fields: dict[str, Any]) -> None:
    message = _message(http, ask(image_part(), "?", **fields))
    assert message == {"role": "assistant", "content": "A cät sat.", "refusal": None}


@pytest.mark.usefixtures("marking")
def test_what_stands_behind_a_stop_string_is_no_part_of_the_answer(http: httpx.Client) -> None:
    message = _message(http, ask(image_part(), "?", grounding=True, stop=" sat"))
    assert (message["content"], len(message["grounding"])) == ("A cät", 1)
    message = _message(http, ask(image_part(), "?", grounding=True, stop="A"))
    assert (message["content"], message["grounding"]) == ("", [])


@pytest.mark.usefixtures("marking")
def test_the_openai_client_takes_the_list(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ask(image_part())["messages"], extra_body={"grounding": True}
    )
    assert len(answer.choices[0].message.to_dict()["grounding"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stream", "fields"),
    [(_choices_mixed, {"n": 2}), (_beams_whole, {"n": 2, "num_beams": 2})],
    ids=["choices", "beams"],
)
def test_every_choice_has_its_own_regions(
    http: httpx.Client,
    service: ScriptedService,
    monkeypatch: pytest.MonkeyPatch,
    stream: Any,
    fields: dict[str, int],
) -> None:
    monkeypatch.setattr(service.engine, "stream", stream)
    body = ask(image_part(png(32, 24)), "?", grounding=True, **fields)
    dog = {"label": "dog", "type": "box"}
    other = {"per_mille": [250, 500, 750, 1000], "image_index": 0, "pixels": [8.0, 12.0, 24.0, 24.0]}
    expected = [("A", [NAMELESS | PIXELS]), ("dogB.", [dog | other, CAT | PIXELS | dog])]
    choices = http.post(CHAT, json=body).json()["choices"]
    told = [(choice["message"]["content"], choice["message"]["grounding"]) for choice in choices]
    assert told == expected
    texts = ["", ""]
    regions: list[list[Any]] = [[], []]
    for chunk in events_of(http.post(CHAT, json=body | {"stream": True}).content)[:-1]:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if "grounding" in choice["delta"]:
            assert not regions[choice["index"]]
            regions[choice["index"]] = choice["delta"]["grounding"]
    assert list(zip(texts, regions, strict=True)) == expected
