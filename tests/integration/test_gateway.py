"""The nginx of docker-compose.yml in front of the service: streams arrive unbuffered, errors unchanged."""

import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

import httpx
import pytest
from openai import OpenAI

from tests.live_server import REPOSITORY, LiveServer, free_port

_MAIN = """
daemon off; pid $dir/nginx.pid; error_log $dir/error.log; worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    include $dir/gateway.conf;
}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _gateway(tmp_path_factory.mktemp("nginx"), {}, max_body_bytes=1_000_000) as url:
        yield url


@contextmanager
def _gateway(directory: Path, below: dict[str, str], **settings: str | int) -> Iterator[str]:
    """The address of an nginx in front of a service; `below` adds paths and where they lead."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    with LiveServer(**settings) as server:
        port = free_port()
        # safe_substitute: nginx's own $variables stay, as with the container's envsubst.
        template = Template((REPOSITORY / "deploy" / "gateway.conf.template").read_text(encoding="utf-8"))
        conf = template.safe_substitute(UPSTREAM=f"127.0.0.1:{server.port}", LISTEN=f"127.0.0.1:{port}")
        whole = conf[conf.index("    location / {") : conf.rindex("}")]
        for path, target in below.items():
            there = whole.replace("location / {", f"location {path} {{")
            conf = conf.replace(whole, whole + there.replace("http://minicpmv;", f"{target};"))
        (directory / "gateway.conf").write_text(conf, encoding="utf-8")
        (directory / "nginx.conf").write_text(_MAIN.replace("$dir", str(directory)), encoding="utf-8")
        process = subprocess.Popen([nginx, "-c", directory / "nginx.conf", "-p", directory, "-e", "stderr"])
        try:
            yield _wait_for(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_for(url: str) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return url
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError("the gateway does not answer")


def test_a_streamed_answer_about_an_image_passes_in_pieces(gateway: str) -> None:
    photo = base64.b64encode((REPOSITORY / "samples" / "cat.jpg").read_bytes()).decode()
    body = {
        "stream": True,
        "max_tokens": 24,
        "ignore_eos": True,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}},
                    {"type": "text", "text": "What is in the picture?"},
                ],
            }
        ],
    }
    with httpx.stream("POST", f"{gateway}/v1/chat/completions", json=body, timeout=60) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        network_reads = list(reply.iter_raw())
    # A gateway that gathers the answer would deliver it in one or two reads.
    assert len(network_reads) > 5
    assert b"".join(network_reads).endswith(b"data: [DONE]\n\n")


def test_errors_of_the_service_reach_the_client_whole(gateway: str) -> None:
    with OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as client:
        assert client.models.list().data
    oversized = httpx.post(f"{gateway}/v1/chat/completions", content=b"x" * 2_000_000, timeout=30)
    assert oversized.status_code == 413
    assert oversized.json()["error"]["code"] == "request_too_large"


def test_a_path_below_which_the_service_stands(tmp_path: Path) -> None:
    """/llm is nginx's and taken off, /openai passes to the service whole."""
    below = {"/llm/": "http://minicpmv/", "/openai/": "http://minicpmv"}
    with _gateway(tmp_path, below, root_path="/llm", route_prefix="/openai") as url:
        for path, server in (("/llm", "/llm"), ("/openai", "/llm/openai")):
            with OpenAI(base_url=f"{url}{path}/v1", api_key="none", max_retries=0) as client:
                (model,) = client.models.list()
                answer = client.chat.completions.create(
                    model=model.id, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
                )
                assert answer.usage is not None
            document = httpx.get(f"{url}{path}/openapi.json").json()
            assert document["servers"] == [{"url": server}]
