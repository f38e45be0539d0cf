"""Structured output from the embedded model, as OpenAI's and vLLM's clients ask for it."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import httpx
import jsonschema
import pytest
from openai import LengthFinishReasonError, OpenAI
from pydantic import BaseModel, ConfigDict, Field

from service.settings import EMBEDDED_MODEL_DIR
from tests.conformance.wire import CHAT, ask, data_url, error_of, events_of
from tests.live_server import REPOSITORY, LiveServer

SHAPES_PNG = (REPOSITORY / "samples" / "shapes.png").read_bytes()
SHAPES = {"type": "image_url", "image_url": {"url": data_url(SHAPES_PNG)}}
Colour = Literal["red", "green", "blue", "yellow", "orange", "purple"]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: Colour
    name: str = Field(max_length=6)


class Scene(BaseModel):
    """Nested, an array with a limit, an enum, a null, a name and a text beyond ASCII."""

    model_config = ConfigDict(extra="forbid")
    shapes: list[Shape] = Field(max_length=2)
    größe: Literal["groß", "klein"] | None
    count: Annotated[int, Field(ge=0, le=9)]


@pytest.fixture
def http(live: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.base_url, timeout=120) as client:
        yield client


@pytest.fixture
def openai(live: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def question(text: str = "What is in the picture?", **fields: Any) -> dict[str, Any]:
    return ask(SHAPES, text, **({"temperature": 0, "max_tokens": 60} | fields))


def messages(text: str) -> Any:
    return question(text)["messages"]


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "scene", "schema": schema}}


def told(http: httpx.Client, body: dict[str, Any]) -> tuple[str, str]:
    """(content, finish reason) of the one choice."""
    reply = http.post(CHAT, json=body)
    assert reply.status_code == 200, reply.text
    (choice,) = reply.json()["choices"]
    return choice["message"]["content"], choice["finish_reason"]


def test_openais_client_parses_a_pydantic_model(openai: OpenAI) -> None:
    reply = openai.chat.completions.parse(
        model="", messages=messages("What is in the picture?"), response_format=Scene, temperature=0
    )
    (choice,) = reply.choices
    assert isinstance(choice.message.parsed, Scene)
    assert choice.finish_reason == "stop"
    assert reply.usage is not None
    with openai.chat.completions.stream(
        model="", messages=messages("What is in the picture?"), response_format=Scene, temperature=0
    ) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == choice.message.parsed
    assert streamed.choices[0].message.content == choice.message.content


def test_openais_client_tells_a_cut_answer_which_is_valid_nevertheless(openai: OpenAI) -> None:
    with pytest.raises(LengthFinishReasonError) as caught:
        openai.chat.completions.parse(
            model="", messages=messages("x"), response_format=Scene, temperature=0, max_tokens=37
        )
    Scene.model_validate_json(caught.value.completion.choices[0].message.content or "")


def test_openais_client_parses_a_response(openai: OpenAI) -> None:
    content = [{"type": "input_image", "image_url": data_url(SHAPES_PNG)}]
    asked: Any = [{"role": "user", "content": [*content, {"type": "input_text", "text": "What is it?"}]}]
    reply = openai.responses.parse(model="", input=asked, text_format=Scene, temperature=0)
    assert isinstance(reply.output_parsed, Scene)
    assert reply.status == "completed"
    assert reply.text is not None
    assert reply.text.format is not None
    assert reply.text.format.type == "json_schema"


def test_a_completion_is_of_a_grammar_too(http: httpx.Client) -> None:
    body = {
        "prompt": ["The colour is", "It is"],
        "max_tokens": 12,
        "structured_outputs": {"regex": " (red|green|blue)!"},
        "seed": 1,
    }
    choices = http.post("/v1/completions", json=body).json()["choices"]
    assert [choice["text"][0] + choice["text"][-1] for choice in choices] == [" !", " !"]
    assert [choice["finish_reason"] for choice in choices] == ["stop", "stop"]
    refused = http.post("/v1/completions", json=body | {"max_tokens": 1})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "max_tokens")


def test_any_object(http: httpx.Client) -> None:
    text, _ = told(http, question(response_format={"type": "json_object"}))
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_every_length_gives_valid_json(http: httpx.Client, temperature: float) -> None:
    schema = Scene.model_json_schema()
    form = schema_format(schema)
    refused = http.post(CHAT, json=question(response_format=form, max_tokens=1))
    assert (refused.status_code, error_of(refused)["param"]) == (400, "max_tokens")
    least = int(error_of(refused)["message"].partition("needs ")[2].partition(":")[0])
    assert http.post(CHAT, json=question(response_format=form, max_tokens=least - 1)).status_code == 400
    for max_tokens in range(least, least + 12):
        body = question(response_format=form, max_tokens=max_tokens, temperature=temperature, seed=max_tokens)
        text, reason = told(http, body)
        jsonschema.validate(json.loads(text), schema)
        assert reason in ("stop", "length")


def test_strings_and_numbers_without_limits_are_closed(http: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "numbers": {"type": "array", "items": {"type": "number"}}},
        "required": ["text", "numbers"],
    }
    for max_tokens in (22, 33, 47):
        for seed in range(3):
            body = question(
                response_format=schema_format(schema), max_tokens=max_tokens, temperature=1.2, seed=seed
            )
            jsonschema.validate(json.loads(told(http, body)[0]), schema)


def test_a_choice_is_made_by_what_is_seen(http: httpx.Client) -> None:
    colours = {"structured_outputs": {"choice": ["red", "green", "blue", "yellow", "orange", "purple"]}}
    for shape in ("circle", "triangle", "square"):
        asked = f"What colour is the {shape}?"
        free, _ = told(http, question(asked))
        assert told(http, question(asked, **colours)) == (free, "stop")


def test_a_choice_may_take_the_only_token_there_is(http: httpx.Client) -> None:
    body = question(max_tokens=1, structured_outputs={"choice": ["blue", "quite something else"]})
    assert told(http, body) == ("blue", "length")


def test_regular_expressions_and_grammars(http: httpx.Client) -> None:
    text, _ = told(http, question(structured_outputs={"regex": r"  [0-9]{1,2} (shapes|things)\n"}))
    assert text.startswith("  "), "white space is part of the answer"
    assert text.endswith((" shapes\n", " things\n"))
    grammar = 'start: "I see " THING (" and " THING)? "."\nTHING: /an? [a-z]{2,8}/'
    text, reason = told(http, question(structured_outputs={"grammar": grammar}))
    assert re.fullmatch(r"I see an? [a-z]{2,8}( and an? [a-z]{2,8})?\.", text), text
    assert reason == "stop"


def test_streams_choices_and_log_probabilities(http: httpx.Client) -> None:
    schema = Scene.model_json_schema()
    body = question(
        response_format=schema_format(schema), temperature=1, seed=5, n=3, logprobs=True, top_logprobs=1
    )
    whole = http.post(CHAT, json=body).json()
    events = events_of(http.post(CHAT, json=body | {"stream": True}).content)
    choices = [choice for event in events if event != "[DONE]" for choice in event["choices"]]
    texts = set()
    for choice in whole["choices"]:
        streamed = [piece for piece in choices if piece["index"] == choice["index"]]
        text = "".join(piece["delta"].get("content", "") for piece in streamed)
        assert text == choice["message"]["content"]
        assert streamed[-1]["finish_reason"] == choice["finish_reason"]
        jsonschema.validate(json.loads(text), schema)
        texts.add(text)
        entries = choice["logprobs"]["content"]
        joined = b"".join(bytes(entry["bytes"]) for entry in entries if entry["bytes"] is not None)
        assert joined.decode() == text
        assert entries == [
            entry for piece in streamed if piece["logprobs"] for entry in piece["logprobs"]["content"]
        ]
    assert len(texts) > 1
    assert (
        sum(len(choice["logprobs"]["content"]) for choice in whole["choices"])
        == whole["usage"]["completion_tokens"]
    )


def test_differently_constrained_and_free_requests_share_batches(http: httpx.Client) -> None:
    schema = Scene.model_json_schema()
    bodies = [
        question(response_format=schema_format(schema), temperature=1, seed=1),
        question(structured_outputs={"regex": "[a-z ]{20,40}"}, temperature=1, seed=2),
        *(question(temperature=1, seed=seed, max_tokens=30) for seed in range(6)),
    ]
    alone = [told(http, body) for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: told(http, body), bodies))
    assert together == alone
    jsonschema.validate(json.loads(together[0][0]), schema)


def test_biases(http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"prompt": "a", "add_special_tokens": False}).json()["tokens"]
    forced, _ = told(http, question(logit_bias={str(ids[0]): 100}, max_tokens=5))
    assert forced == "aaaaa"
    asked = "What colour is the circle?"
    free, _ = told(http, question(asked))
    first = http.post("/tokenize", json={"prompt": free, "add_special_tokens": False}).json()["tokens"][0]
    banned, _ = told(http, question(asked, logit_bias={str(first): -100}))
    assert banned
    assert not banned.startswith(free)


@pytest.mark.parametrize(
    ("outputs", "param"),
    [
        ({"regex": "("}, "structured_outputs.regex"),
        ({"regex": "(" * 4000}, "structured_outputs.regex"),
        ({"regex": "(?=a)b"}, "structured_outputs.regex"),
        ({"choice": []}, "structured_outputs.choice"),
        ({"grammar": "start: nothing"}, "structured_outputs.grammar"),
        ({"grammar": "start: <image>"}, "structured_outputs.grammar"),
        ({"grammar": "start: <[105]>"}, "structured_outputs.grammar"),
        (
            {"grammar": "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(4000)) + '\nr4000: "a"'},
            "structured_outputs.grammar",
        ),
        ({"json": "nonsense"}, "structured_outputs.json"),
        ({"json": {"type": "nonsense"}}, "structured_outputs.json"),
        ({"json": {"$ref": "http://127.0.0.1/schema"}}, "structured_outputs.json"),
        ({"json": {"multipleOf": 99999989, "type": "integer"}}, "structured_outputs.json"),
        ({"json": {"items": {"items": {}}} | {"enum": [[[]] * 3000]}}, "structured_outputs.json"),
        ({"json": {"minItems": 10**9, "type": "array"}}, "structured_outputs.json"),
        ({"whitespace_pattern": " *", "regex": "a"}, "structured_outputs.whitespace_pattern"),
        ({"_backend": "x", "regex": "a"}, "structured_outputs._backend"),
    ],
    ids=range(16),
)
def test_what_is_no_grammar_is_a_400_and_the_service_goes_on(
    http: httpx.Client, outputs: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        reply = http.post(CHAT, json=question(structured_outputs=outputs, stream=stream))
        assert (reply.status_code, error_of(reply)["param"]) == (400, param)
    assert told(http, question(structured_outputs={"choice": ["red"]})) == ("red", "stop")


def test_a_keyword_that_is_not_supported_is_named(http: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    reply = http.post(CHAT, json=question(response_format=schema_format(schema)))
    assert reply.status_code == 400
    assert error_of(reply)["param"] == "response_format.json_schema.schema"
    assert "uniqueItems" in error_of(reply)["message"]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"type": "json_schema"}, "the type json_schema needs response_format.json_schema"),
        (
            schema_format({"type": "object"}) | {"type": "json_object"},
            "response_format.json_schema goes with the type json_schema only, not with json_object",
        ),
    ],
)
def test_a_schema_that_is_missing_or_too_much(http: httpx.Client, form: dict[str, Any], message: str) -> None:
    error = error_of(http.post(CHAT, json=question(response_format=form)))
    assert (error["message"], error["param"]) == (message, "response_format.json_schema")


def test_a_completion_too_short_by_default_says_which_field_to_send(http: httpx.Client) -> None:
    body = {"prompt": "a", "structured_outputs": {"regex": "[a-z]{60}"}}
    error = error_of(http.post("/v1/completions", json=body))
    assert error["param"] == "max_tokens"
    assert "send a larger max_tokens" in error["message"]
    reply = http.post("/v1/completions", json=body | {"max_tokens": 60})
    assert len(reply.json()["choices"][0]["text"]) == 60


def test_the_stateful_runner_follows_grammars_too() -> None:
    with (
        LiveServer(model_dir=EMBEDDED_MODEL_DIR, runner="stateful") as stateful,
        httpx.Client(base_url=stateful.base_url, timeout=120) as http,
    ):
        schema = Scene.model_json_schema()
        body = question(response_format=schema_format(schema), temperature=1, seed=4, n=1)
        jsonschema.validate(json.loads(told(http, body)[0]), schema)
        assert told(http, question(structured_outputs={"choice": ["red"]})) == ("red", "stop")
