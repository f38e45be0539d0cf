"""What a request may say of the form of its answers: OpenAI's response_format, vLLM's structured_outputs."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from service.protocol.field_state import Refused, Tolerated
from service.protocol.json_type import OBJECT, TEXT, json_type_tag
from service.protocol.wire_model import RequestModel

MAX_SCHEMA_NAME_LENGTH = 64

JsonSchema = dict[str, JsonValue]


SchemaName = Annotated[str, Field(pattern=rf"^[a-zA-Z0-9_-]{{1,{MAX_SCHEMA_NAME_LENGTH}}}$")]


class JsonSchemaFormat(RequestModel):
    """Only the schema matters: the model is told nothing of it."""

    name: Annotated[SchemaName, Tolerated()]
    description: Annotated[JsonValue, Tolerated()] = None
    schema_: JsonSchema = Field(alias="schema")
    strict: Annotated[bool | None, Tolerated()] = None


class ResponseFormat(RequestModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class TextFormat(RequestModel):
    """ResponseFormat as a response's `text` has it: flat."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[SchemaName | None, Tolerated()] = None
    description: Annotated[str | None, Tolerated()] = None
    schema_: JsonSchema | None = Field(None, alias="schema")
    strict: Annotated[bool | None, Tolerated()] = None


class StructuredOutputs(RequestModel):
    """Exactly one of json, regex, choice and grammar."""

    json_: (
        Annotated[
            Annotated[JsonSchema, Tag(OBJECT)] | Annotated[str, Tag(TEXT)],
            Discriminator(
                json_type_tag,
                custom_error_type="schema",
                custom_error_message="Input should be a JSON schema: an object, or its JSON as a string",
            ),
        ]
        | None
    ) = Field(None, alias="json")
    regex: str | None = Field(None, description="What the whole answer matches; Rust's regex syntax.")
    choice: list[str] | None = None
    grammar: str | None = Field(None, description="A Lark grammar, as llguidance reads it.")
    json_object: Annotated[JsonValue, Refused((False,))] = None
    structural_tag: Annotated[JsonValue, Refused()] = None
    whitespace_pattern: Annotated[JsonValue, Refused()] = None
    disable_fallback: Annotated[JsonValue, Refused((False,))] = None
    disable_any_whitespace: Annotated[JsonValue, Refused((False,))] = None
    disable_additional_properties: Annotated[JsonValue, Refused((False,))] = None
