"""Marks of an answer are read as the model was taught to write them; whatever else it writes is left out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifacts import TokenIds
from service.prompt.regions import Region, RegionReader
from tests.unit.prompt.test_detokenizer import BOX, BOX_END, REF, REF_END, ByteTokenizer, ids_of

IDS = TokenIds()
QUAD, QUAD_END, POINT, POINT_END = IDS.quad_start, IDS.quad_end, IDS.point_start, IDS.point_end


def _read(*items: str | int | bytes) -> tuple[Region, ...]:
    reader = RegionReader(ByteTokenizer(), IDS)
    for token_id in ids_of(*items):
        reader.push(token_id)
    return reader.regions


CAT = (REF, "cat", REF_END)
ONE = (BOX, "1 2 3 4", BOX_END)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (ONE, [("box", (1, 2, 3, 4), None)]),
        ((*CAT, *ONE), [("box", (1, 2, 3, 4), "cat")]),
        ((*CAT, " \n", BOX, " 0  0 1000 1000 ", BOX_END), [("box", (0, 0, 1000, 1000), "cat")]),
        ((*CAT, *ONE, *ONE), [("box", (1, 2, 3, 4), "cat")] * 2),
        ((*CAT, " is at ", *ONE), [("box", (1, 2, 3, 4), None)]),
        ((*CAT, *ONE, ", ", *ONE), [("box", (1, 2, 3, 4), "cat"), ("box", (1, 2, 3, 4), None)]),
        ((*CAT, REF, "dog", REF_END, *ONE), [("box", (1, 2, 3, 4), "dog")]),
        ((REF, " 你好 ", REF_END, *ONE), [("box", (1, 2, 3, 4), "你好")]),
        ((REF, b"\xe4", REF_END, *ONE), [("box", (1, 2, 3, 4), None)]),
        ((REF, " ", REF_END, *ONE), [("box", (1, 2, 3, 4), None)]),
        ((QUAD, "1 2 3 4 5 6 7 8", QUAD_END), [("quad", (1, 2, 3, 4, 5, 6, 7, 8), None)]),
        ((POINT, "5 6", POINT_END), [("point", (5, 6), None)]),
        ((BOX, 0, "1 2", 0, " 3 4", BOX_END), [("box", (1, 2, 3, 4), None)]),
        ((BOX, "5 5 5 5", BOX_END), [("box", (5, 5, 5, 5), None)]),
        ((BOX, "1 2 3", BOX_END), []),
        ((BOX, "1 2 3 4 5", BOX_END), []),
        ((BOX, "1 2 3 1001", BOX_END), []),
        ((BOX, "3 2 1 4", BOX_END), []),
        ((BOX, "1 4 3 2", BOX_END), []),
        ((BOX, "-1 2 3 4", BOX_END), []),
        ((BOX, "1.5 2 3 4", BOX_END), []),
        ((BOX, "1,2,3,4", BOX_END), []),
        ((BOX, "١ 2 3 4", BOX_END), []),
        ((BOX, "1" * 5000, BOX_END), []),
        ((BOX, "", BOX_END), []),
        ((BOX, "1 2 3 4"), []),
        ((BOX, "1 2 3 4", 2), []),
        ((BOX, "1 2 3 4", QUAD_END), []),
        (("1 2 3 4", BOX_END), []),
        ((BOX, "1 2", 101, " 3 4", BOX_END), []),
        ((*CAT, BOX, "1 2", *ONE), [("box", (1, 2, 3, 4), None)]),
        ((REF, "cat", *ONE, REF_END), [("box", (1, 2, 3, 4), None)]),
        (("<box>1 2 3 4</box>",), []),
    ],
)
def test_regions(
    items: tuple[str | int | bytes, ...], expected: list[tuple[str, tuple[int, ...], str | None]]
) -> None:
    assert [(region.shape, region.per_mille, region.label) for region in _read(*items)] == expected


Marks = st.sampled_from([REF, REF_END, BOX, BOX_END, QUAD, QUAD_END, POINT, POINT_END, 0, 1, 2, 101])
Numbers = st.lists(st.integers(-1, 1100), max_size=9).map(lambda numbers: " ".join(map(str, numbers)))


@settings(max_examples=100, deadline=None)
@given(items=st.lists(Marks | Numbers | st.text(max_size=3) | st.binary(min_size=1, max_size=3), max_size=24))
def test_whatever_comes_a_region_is_whole(items: list[str | int | bytes]) -> None:
    for region in _read(*items):
        assert len(region.per_mille) == {"box": 4, "quad": 8, "point": 2}[region.shape]
        assert all(0 <= number <= 1000 for number in region.per_mille)
        assert region.label is None or region.label.strip() == region.label != ""
