"""Images by URL over HTTP: off unless hosts are listed, answers as of inline ones, every failure named."""

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.engine.engine import Engine, EngineConfig
from service.remote.dialler import CheckedDialler
from service.remote.image_fetcher import FetchLimits, ImageFetcher
from service.remote.image_hosts import ImageHosts
from tests.conformance.scripted_service import TOKEN_IDS, VOCAB_SIZE, ScriptedService, wait_until
from tests.conformance.wire import CHAT, ask, error_of, image_part, png
from tests.image_host import Answer, ImageHost, reply, stay_silent
from tests.unit.engine.scripted_model import ScriptedModel

PICTURE = png(300, 200, "teal")
TOO_LARGE = b"\x89PNG" + bytes(100_000)


LATE_S = 0.05


def late(connection: socket.socket) -> None:
    time.sleep(LATE_S)
    connection.sendall(reply(PICTURE))


def make_fetcher(host: ImageHost, read_s: float = 120) -> ImageFetcher:
    hosts = ImageHosts([f"http://127.0.0.1:{host.port}"])
    return ImageFetcher(hosts, CheckedDialler(may_be_private=True), FetchLimits(read_s=read_s, total_s=120))


@pytest.fixture(scope="module")
def host() -> Iterator[ImageHost]:
    answers: dict[str, Answer] = {
        "/picture.png": reply(PICTURE, "Content-Type: image/png"),
        "/page.html": reply(b"<html>Log in</html>", "Content-Type: image/png"),
        "/moved.png": reply(b"", "Location: /picture.png", status="301 Moved Permanently"),
        "/large.png": reply(TOO_LARGE),
        "/wide.png": reply(png(2001, 1)),
        "/noise.png": reply(bytes(60_000)),
        "/packed.png": reply(PICTURE, "Content-Encoding: gzip"),
        "/cut.png": reply(PICTURE[:100], f"Content-Length: {len(PICTURE)}"),
        "/half.png": reply(PICTURE[: len(PICTURE) // 2]),
        "/slow.png": stay_silent,
        "/late.png": late,
    }
    with ImageHost(answers) as host:
        yield host


@pytest.fixture(scope="module")
def fetching(host: ImageHost) -> Iterator[ScriptedService]:
    with ScriptedService(fetcher=make_fetcher(host, read_s=0.5)) as service:
        service.open()
        yield service


def url_part(url: str, **fields: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def post(service: ScriptedService, *content: Any, **fields: Any) -> httpx.Response:
    return httpx.post(f"{service.base_url}{CHAT}", json=ask(*content, **fields), timeout=30)


def test_the_model_sees_what_it_would_see_inline(fetching: ScriptedService, host: ImageHost) -> None:
    fetching.engine.reset()
    for part in (image_part(PICTURE), url_part(host.url("/picture.png"))):
        assert post(fetching, part, "?", image_part(), seed=1).status_code == 200
    inline, remote = fetching.engine.requests
    assert np.array_equal(inline.token_ids, remote.token_ids)
    assert [span.digest for span in inline.image_spans] == [span.digest for span in remote.image_spans]


def test_a_bare_url_an_overview_and_a_stream(fetching: ScriptedService, host: ImageHost) -> None:
    fetching.engine.reset()
    bare = {"type": "image_url", "image_url": host.url("/picture.png")}
    overview = url_part(host.url("/picture.png"), detail="low")
    answer = post(fetching, bare, overview, "?", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert fetching.engine.requests[0].image_spans


def test_fetching_is_time_for_images(host: ImageHost) -> None:
    config = EngineConfig(
        max_position_embeddings=200,
        eos_token_id=TOKEN_IDS.eos,
        kv_cache_bytes=200 * ScriptedModel.block_bytes,
    )
    engine = Engine(ScriptedModel(VOCAB_SIZE), config)
    engine.start()
    try:
        with ScriptedService(token_engine=engine, fetcher=make_fetcher(host)) as service:
            service.open()
            answer = post(service, url_part(host.url("/late.png"), detail="low"), max_tokens=2, timings=True)
    finally:
        engine.stop()
    assert answer.json()["timings"]["image_ms"] >= LATE_S * 1000


def test_tokens_of_messages(fetching: ScriptedService, host: ImageHost) -> None:
    counts = []
    for part in (image_part(PICTURE), url_part(host.url("/picture.png"))):
        answer = httpx.post(f"{fetching.base_url}/tokenize", json=ask(part, "?"), timeout=30)
        counts.append(answer.json()["count"])
    assert counts[0] == counts[1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/missing.png", 400, "invalid_image_url"),
        ("/moved.png", 400, "invalid_image_url"),
        ("/packed.png", 400, "invalid_image_url"),
        ("/cut.png", 400, "invalid_image_url"),
        ("/slow.png", 400, "invalid_image_url"),
        ("/page.html", 400, "invalid_image"),
        ("/half.png", 400, "invalid_image"),
        ("/large.png", 413, "request_too_large"),
        ("/wide.png", 413, "request_too_large"),
    ],
)
def test_what_cannot_be_used_is_named(
    fetching: ScriptedService, host: ImageHost, path: str, status: int, code: str, stream: bool
) -> None:
    fetching.engine.reset()
    answer = post(fetching, image_part(), url_part(host.url(f"{path}")), "?", stream=stream)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["param"] == "messages[0].content[1].image_url.url"
    assert "127.0.0.1" not in error["message"]
    assert path not in error["message"]
    assert not fetching.engine.requests
    assert fetching.generator.num_in_flight == 0


def test_all_that_is_fetched_for_a_request_counts_together(
    fetching: ScriptedService, host: ImageHost
) -> None:
    answer = post(fetching, *[url_part(host.url("/noise.png"))] * 3, "?")
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.com/a.png?token=secret",
        "http://localhost:{port}/picture.png",
        "http://user:secret@127.0.0.1:{port}/picture.png",
        "https://127.0.0.1:{port}/picture.png",
        "http://127.0.0.1/picture.png",
        "http://2130706433:{port}/picture.png",
        "http://[::ffff:127.0.0.1]:{port}/picture.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[",
    ],
)
def test_a_host_that_is_not_listed_is_never_asked(
    fetching: ScriptedService, host: ImageHost, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    caplog.set_level(logging.DEBUG)
    host.requests.clear()
    answer = post(fetching, url_part(url.format(port=host.port)), "?")
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_image_url")
    assert error["param"] == "messages[0].content[0].image_url.url"
    assert "MINICPMV_IMAGE_HOSTS" in error["message"]
    assert "secret" not in answer.text + caplog.text
    assert not host.requests


def test_other_schemes_stay_refused(fetching: ScriptedService) -> None:
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/a.png", "//127.0.0.1/a.png"):
        answer = post(fetching, url_part(url), "?")
        assert answer.status_code == 400
        assert error_of(answer)["message"].startswith("only data URLs ")


def test_off_unless_hosts_are_listed(service: ScriptedService, host: ImageHost) -> None:
    host.requests.clear()
    answer = post(service, url_part(host.url("/picture.png")), "?")
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, "messages[0].content[0].image_url.url")
    assert "MINICPMV_IMAGE_HOSTS" in error["message"]
    assert not host.requests


def test_a_log_never_holds_a_path(
    fetching: ScriptedService, host: ImageHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for path in ("/picture.png", "/moved.png", "/missing.png?token=secret"):
        post(fetching, url_part(host.url(path)), "?")
    assert "no image from 127.0.0.1: status 404" in caplog.text
    for record in caplog.records:
        if record.name.startswith(("httpx", "httpcore.")):  # this test's own client
            continue
        assert "secret" not in record.getMessage()
        assert ".png" not in record.getMessage()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, lambda part: ask(part, "?")),
        (CHAT, lambda part: ask(part, "?", stream=True)),
        ("/tokenize", lambda part: ask(part, "?")),
    ],
    ids=["unary", "stream", "tokenize"],
)
def test_leaving_ends_the_fetch(host: ImageHost, path: str, body: Callable[[Any], dict[str, Any]]) -> None:
    with ScriptedService(fetcher=make_fetcher(host)) as service:
        service.open()
        wait_until(lambda: host.num_open == 0)
        content = json.dumps(body(url_part(host.url("/slow.png")))).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", service.port)) as raw:
            raw.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            wait_until(lambda: host.num_open == 1)
            assert service.generator.num_in_flight == 1
        wait_until(lambda: host.num_open == 0)
        wait_until(lambda: service.generator.num_in_flight == 0)
        assert not service.engine.requests
