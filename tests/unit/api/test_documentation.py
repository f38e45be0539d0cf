"""openapi.yaml is what the app says, and what it shows as examples works."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.api.examples import (
    CHAT_EXAMPLES,
    CHAT_STREAM_EXAMPLE,
    COMPLETION_EXAMPLES,
    COMPLETION_STREAM_EXAMPLE,
    RESPONSE_EXAMPLES,
    RESPONSE_STREAM_EXAMPLE,
)
from service.generation.chat_messages import read_dialogue
from service.openapi import openapi_yaml
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.chat_response import ChatCompletionChunk
from service.protocol.completion_request import CompletionRequest
from service.protocol.completion_response import Completion
from service.protocol.responses_events import TextDeltaEvent
from service.protocol.responses_request import ResponsesRequest
from service.protocol.wire_model import ReplyModel
from service.vision.data_url import read_data_url
from service.vision.decode import ImageLimits, decode_image, read_header
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def document() -> Any:
    return yaml.safe_load(openapi_yaml())


def test_openapi_yaml_has_not_drifted() -> None:
    written = Path(REPOSITORY / "openapi.yaml").read_text(encoding="utf-8")
    assert written == openapi_yaml(), "run `make openapi`"


def test_every_operation_answers_errors_with_the_envelope(document: Any) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path
            for status, reply in operation["responses"].items():
                if status.startswith(("4", "5")) or (status == "default"):
                    schema = reply["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_reference_leads_somewhere(document: Any) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(child) for child in node.values()))
        return set().union(*(references(child) for child in node)) if isinstance(node, list) else set()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


@pytest.mark.parametrize(
    ("shape", "example"),
    [
        *((ChatCompletionRequest, example) for example in CHAT_EXAMPLES.values()),
        *((ResponsesRequest, example) for example in RESPONSE_EXAMPLES.values()),
    ],
)
def test_the_examples_are_requests_with_readable_images(
    shape: type[ChatCompletionRequest | ResponsesRequest], example: dict[str, Any]
) -> None:
    images = read_dialogue(shape.model_validate(example["value"])).images
    for image in images:
        data = read_data_url(image.url, 10_000, image.param)
        pixels = decode_image(data, read_header(data, ImageLimits(), image.param))
        assert pixels.shape == (8, 8, 3)
    assert bool(images) == ("image" in example["summary"])


@pytest.mark.parametrize("example", COMPLETION_EXAMPLES.values())
def test_the_examples_of_completions_are_requests(example: dict[str, Any]) -> None:
    CompletionRequest.model_validate(example["value"])


@pytest.mark.parametrize(
    ("shape", "stream"),
    [
        (ChatCompletionChunk, CHAT_STREAM_EXAMPLE),
        (Completion, COMPLETION_STREAM_EXAMPLE),
        (TextDeltaEvent, RESPONSE_STREAM_EXAMPLE),
    ],
)
def test_the_example_streams_have_the_shapes_they_show(shape: type[ReplyModel], stream: str) -> None:
    lines = [line for line in stream.splitlines() if line.startswith("data: {")]
    assert lines
    for line in lines:
        shape.model_validate_json(line.removeprefix("data: "))
