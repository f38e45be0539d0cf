"""Which of a request's images are fetched, and how much together; knows no network and no image."""

from typing import Protocol

from service.errors import TooLargeError
from service.generation.chat_messages import Dialogue


class ImageFetcher(Protocol):
    """What generation needs of service.remote.image_fetcher.ImageFetcher."""

    async def fetch(self, url: str, max_bytes: int, param: str) -> bytes: ...


async def fetch_images(
    dialogue: Dialogue, fetcher: ImageFetcher, max_bytes: int, max_total_bytes: int
) -> list[tuple[str | bytes, str]]:
    """(the URL itself, or what it brought if its scheme is http or https; param) of each image.

    One after another: a request takes one of the fetcher's places, however many images it has. Raises what
    fetch() does, TooLargeError if all together have more than `max_total_bytes`.
    """
    sources: list[tuple[str | bytes, str]] = []
    num_bytes = 0
    for reference in dialogue.images:
        if not _is_remote(reference.url):
            sources.append((reference.url, reference.param))
            continue
        content = await fetcher.fetch(reference.url, max_bytes, reference.param)
        num_bytes += len(content)
        if num_bytes > max_total_bytes:
            raise TooLargeError(
                f"the images that were fetched have more than {max_total_bytes} bytes together",
                dialogue.field,
            )
        sources.append((content, reference.param))
    return sources


def _is_remote(url: str) -> bool:
    return url[:8].lower().startswith(("http:", "https:"))
