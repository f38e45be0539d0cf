"""From regions an answer marked to pixels of the image they lie in; knows no tokens."""

from collections.abc import Iterable, Sequence

from service.prompt.regions import Region
from service.protocol.grounding import GroundedRegion

_SCALE = 1000


def locate(regions: Iterable[Region], image_sizes: Sequence[tuple[int, int]]) -> tuple[GroundedRegion, ...]:
    """The regions on the wire; `image_sizes` are (width, height) of the conversation's images, upright.

    Which of several images is meant the model does not say: then there are no pixels. Without an image there
    is nothing to point at, and nothing is told. docs/decisions/0014-grounding.md
    """
    if not image_sizes:
        return ()
    size = image_sizes[0] if len(image_sizes) == 1 else None
    return tuple(
        GroundedRegion(
            label=region.label,
            type=region.shape,
            image_index=None if size is None else 0,
            pixels=None if size is None else _to_pixels(region.per_mille, size),
            per_mille=region.per_mille,
        )
        for region in regions
    )


def _to_pixels(per_mille: tuple[int, ...], size: tuple[int, int]) -> tuple[float, ...]:
    return tuple(number * size[index % 2] / _SCALE for index, number in enumerate(per_mille))
