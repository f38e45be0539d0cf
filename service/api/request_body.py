"""From the bytes of a request body to its shape, every fault named by its field; knows no route."""

import re
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from service.errors import InvalidValueError, UnsupportedFieldError

_Shape = TypeVar("_Shape")
_UNION_TAG = re.compile(r"<\w+>")


async def read_body(request: Request, shape: TypeAdapter[_Shape]) -> _Shape:
    """Parse and validate; raises InvalidValueError for the first fault, UnsupportedFieldError by field name.

    Nesting is limited by pydantic's JSON parser (200 levels).
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # Also keeps pages of other origins from posting to a local server without a preflight.
        raise InvalidValueError("the Content-Type must be application/json")
    body = await request.body()
    try:
        return shape.validate_json(body)
    except ValidationError as error:
        raise _first_fault(
            error.errors(include_url=False, include_context=False, include_input=False)[0]
        ) from None


def _first_fault(fault: ErrorDetails) -> InvalidValueError:
    if fault["type"] == "json_invalid":
        return InvalidValueError("the body is not valid JSON")
    param = dotted(fault["loc"])
    if fault["type"] == "extra_forbidden":
        return UnsupportedFieldError(
            f"{param or 'this name'} is not a field that this route knows", param or None
        )
    return InvalidValueError(f"{param or 'the body'}: {fault['msg']}", param or None)


def dotted(location: tuple[str | int, ...]) -> str:
    """messages[0].content[1].image_url.url, from pydantic's location without the tags of unions."""
    steps = [
        f"[{step}]" if isinstance(step, int) else f".{step[:64]}"
        for step in location
        if isinstance(step, int) or not _UNION_TAG.fullmatch(step)
    ]
    return "".join(steps).removeprefix(".")
