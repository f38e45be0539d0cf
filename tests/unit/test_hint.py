"""samples/hint.py, which `make serve` runs beside the service."""

import runpy

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("host", "reachable"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("box", "box")],
)
def test_the_printed_address_is_one_that_answers(host: str, reachable: str) -> None:
    hint = runpy.run_path(str(REPOSITORY / "samples" / "hint.py"))
    assert hint["_reachable"](host) == reachable
