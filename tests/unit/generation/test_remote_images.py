"""Which images are fetched, in which order, and what all of them may weigh."""

import pytest

from service.errors import TooLargeError
from service.generation.chat_messages import Dialogue, ImageReference
from service.generation.remote_images import fetch_images
from service.prompt.conversation import Conversation


class Hosts:
    """Brings as many bytes as the URL's last part says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, str]] = []

    async def fetch(self, url: str, max_bytes: int, param: str) -> bytes:
        self.asked.append((url, max_bytes, param))
        return bytes(int(url.rpartition("/")[2]))


def dialogue(*urls: str) -> Dialogue:
    references = (ImageReference(url, "auto", f"image {index}") for index, url in enumerate(urls))
    return Dialogue(Conversation(None, ()), tuple(references), "input")


async def test_only_http_urls_are_fetched() -> None:
    hosts = Hosts()
    urls = [
        "data:image/png;base64,AAAA",
        "https://a/3",
        "file:///etc/passwd",
        "HTTP://b/4",
        "",
        "httpd://c/5",
    ]
    sources = await fetch_images(dialogue(*urls), hosts, 10, 100)
    assert [source for source, _ in sources] == [urls[0], bytes(3), urls[2], bytes(4), "", urls[5]]
    assert [param for _, param in sources] == [f"image {index}" for index in range(6)]
    assert hosts.asked == [("https://a/3", 10, "image 1"), ("HTTP://b/4", 10, "image 3")]


async def test_together_they_may_not_be_too_large() -> None:
    hosts = Hosts()
    assert len(await fetch_images(dialogue("https://a/5", "https://a/5"), hosts, 5, 10)) == 2
    with pytest.raises(TooLargeError, match="more than 10 bytes together") as caught:
        await fetch_images(dialogue("https://a/5", "https://a/4", "https://a/2", "https://a/1"), hosts, 5, 10)
    assert caught.value.param == "input"
    assert [url for url, *_ in hosts.asked][2:] == ["https://a/5", "https://a/4", "https://a/2"]
