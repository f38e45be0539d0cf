"""From wire messages to a conversation."""

from typing import Any

import pytest

from service.errors import InvalidValueError
from service.generation.chat_messages import ImageReference, read_dialogue
from service.prompt.conversation import Conversation, ImagePart, TextPart, Turn
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.responses_request import ResponsesRequest


def _read(*messages: dict[str, Any]) -> tuple[Conversation, tuple[ImageReference, ...]]:
    dialogue = read_dialogue(ChatCompletionRequest.model_validate({"messages": list(messages)}))
    assert dialogue.field == "messages"
    return dialogue.conversation, dialogue.images


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def test_turns_and_images_in_order() -> None:
    conversation, images = _read(
        _said("user", [_image("a", detail="low"), _text("one")]),
        _said("assistant", "two"),
        _said("user", [_text("three"), {"type": "image_url", "image_url": "b"}]),
    )
    assert conversation == Conversation(
        None,
        (
            Turn("user", (ImagePart(0), TextPart("one"))),
            Turn("assistant", (TextPart("two"),)),
            Turn("user", (TextPart("three"), ImagePart(1))),
        ),
    )
    assert images == (
        ImageReference("a", "low", "messages[0].content[0].image_url.url"),
        ImageReference("b", "auto", "messages[2].content[1].image_url"),
    )


def test_system_messages_are_joined_wherever_they_stand() -> None:
    conversation, _ = _read(
        _said("system", "one"),
        _said("user", "x"),
        _said("assistant", "y"),
        _said("developer", [_text("two"), _text("three")]),
        _said("user", "z"),
    )
    assert conversation.system == "one\ntwo\nthree"
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "user"]
    assert _read(_said("system", ""), _said("user", "x"))[0].system is None


def test_messages_of_one_role_in_a_row_are_one_turn() -> None:
    conversation, _ = _read(_said("user", "a"), _said("user", [_image("i"), _text("b")]))
    assert conversation.turns == (Turn("user", (TextPart("a"), ImagePart(0), TextPart("b"))),)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([_said("system", "x")], "messages"),
        ([_said("assistant", "x"), _said("user", "y")], "messages[0].role"),
        ([_said("user", "x"), _said("assistant", "y")], "messages[1].role"),
        (
            [_said("user", "x"), _said("assistant", [_image("i")]), _said("user", "y")],
            "messages[1].content[0]",
        ),
    ],
)
def test_what_cannot_be_shown_to_the_model(messages: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        _read(*messages)
    assert caught.value.param == param


def test_the_input_of_a_response_is_read_as_messages_are() -> None:
    content = [
        {"type": "input_text", "text": "one"},
        {"type": "input_image", "image_url": "a", "detail": "low"},
        {"type": "input_image", "image_url": "b"},
    ]
    history = [_said("user", content), _said("assistant", [{"type": "output_text", "text": "two"}])]
    body = {"input": [*history, _said("developer", "s"), _said("user", "three")], "instructions": "first"}
    dialogue = read_dialogue(ResponsesRequest.model_validate(body))
    assert dialogue.conversation == Conversation(
        "first\ns",
        (
            Turn("user", (TextPart("one"), ImagePart(0), ImagePart(1))),
            Turn("assistant", (TextPart("two"),)),
            Turn("user", (TextPart("three"),)),
        ),
    )
    assert dialogue.images == (
        ImageReference("a", "low", "input[0].content[1].image_url"),
        ImageReference("b", "auto", "input[0].content[2].image_url"),
    )
    assert dialogue.field == "input"
    assert dialogue.num_characters == len("first\ns" + "one" + "two" + "three")


def test_the_input_of_a_response_may_be_a_text() -> None:
    dialogue = read_dialogue(ResponsesRequest.model_validate({"input": "x", "instructions": ""}))
    assert dialogue.conversation == Conversation(None, (Turn("user", (TextPart("x"),)),))


def test_tools_are_told_behind_the_system_text() -> None:
    request = ChatCompletionRequest.model_validate({"messages": [_said("system", "a"), _said("user", "x")]})
    assert read_dialogue(request, "b").conversation.system == "a\nb"


def test_calls_and_results_are_turns_of_text() -> None:
    def call(call_id: str, name: str) -> dict[str, Any]:
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}

    conversation, images = _read(
        _said("user", [_image("i"), _text("one")]),
        {"role": "assistant", "content": "two", "tool_calls": [call("a", "f"), call("b", "g")]},
        {"role": "tool", "tool_call_id": "b", "content": "three"},
        {"role": "tool", "tool_call_id": "a", "content": [_text("four"), _text("five")]},
        _said("user", "six"),
        {"role": "assistant", "tool_calls": [call("a", "h")]},
        {"role": "tool", "tool_call_id": "a", "content": ""},
    )
    assert [
        (turn.role, [p.text for p in turn.parts if isinstance(p, TextPart)]) for turn in conversation.turns
    ] == [
        ("user", ["one"]),
        ("assistant", ["two", '{"name": "f", "arguments": {}}', '{"name": "g", "arguments": {}}']),
        ("user", ["Result of g: three", "Result of f: four\nfive", "six"]),
        ("assistant", ['{"name": "h", "arguments": {}}']),
        ("user", ["Result of h: "]),
    ]
    assert len(images) == 1
