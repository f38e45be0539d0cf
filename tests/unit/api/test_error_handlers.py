"""Every class of service.errors has its status; what is our fault says nothing."""

import json

import pytest

from service import errors
from service.api.error_handlers import error_reply

STATUSES = {
    errors.InvalidValueError: 400,
    errors.UnsupportedFieldError: 400,
    errors.ImageDecodeError: 400,
    errors.ImageFetchError: 400,
    errors.ContextLengthError: 400,
    errors.AuthenticationError: 401,
    errors.NotFoundError: 404,
    errors.TooLargeError: 413,
    errors.OverloadedError: 429,
    errors.EngineError: 500,
    errors.NotReadyError: 503,
}


def _leaves(kind: type[errors.RequestError]) -> set[type[errors.RequestError]]:
    return {kind}.union(*(_leaves(child) for child in kind.__subclasses__ ()))  # fmt: skip


def test_the_table_is_complete() -> None:
    assert _leaves(errors.RequestError) - {errors.RequestError} == set(STATUSES)


@pytest.mark.parametrize("kind", STATUSES)
def test_status_and_envelope(kind: type[errors.RequestError]) -> None:
    reply = error_reply(kind("what it says", "field"))
    error = json.loads(bytes(reply.body))["error"]
    assert reply.status_code == STATUSES[kind]
    if reply.status_code == 500:
        assert (error["message"], error["param"]) == (
            "The server failed while working on this request.",
            None,
        )
        assert reply.headers["x-should-retry"] == "false"
    else:
        assert (error["message"], error["param"]) == ("what it says", "field")
        assert "x-should-retry" not in reply.headers
    assert ("retry-after" in reply.headers) == (reply.status_code in (429, 503))
