"""Marks what this server does with a request field it knows; every field without a mark is honoured."""

from dataclasses import dataclass

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class Tolerated:
    """Accepted and without influence on the answer."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(source)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return _described(handler(schema), "Accepted; has no influence on the answer.")


@dataclass(frozen=True, slots=True, eq=False)
class Refused:
    """Would change the answer and is not implemented: refused by name, unless null or one of `no_op`.

    Compared by identity: `Annotated` keeps one of those that are equal, and (0,) equals (False,).
    """

    no_op: tuple[JsonValue, ...] = ()

    def accepts(self, value: JsonValue) -> bool:
        """Whether the value asks for nothing; `true` is not 1, though 1.0 is."""
        return value is None or any(
            value == harmless and isinstance(value, bool) == isinstance(harmless, bool)
            for harmless in self.no_op
        )

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(source)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        handler(schema)
        return _described({"enum": [None, *self.no_op]}, "Not implemented: any other value is refused.")


def _described(schema: JsonSchemaValue, description: str) -> JsonSchemaValue:
    return schema | {"description": description}
