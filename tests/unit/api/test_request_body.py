"""pydantic's locations in the dotted form clients see."""

import pytest

from service.api.request_body import dotted


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ((), ""),
        (("n",), "n"),
        (("messages", 0, "content", "<list>", 1, "<image_url>", "image_url", "<object>", "url"),
         "messages[0].content[1].image_url.url"),
        (("stop", "<list>", 2), "stop[2]"),
        (("x" * 100,), "x" * 64),
    ],
)  # fmt: skip
def test_dotted(location: tuple[str | int, ...], expected: str) -> None:
    assert dotted(location) == expected
