"""Prompts: order of images and text, the system message, and typed marks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifacts import TokenIds
from service.prompt.chat_template import ChatTemplate
from service.prompt.conversation import Conversation, ImagePart, Role, TextPart, Turn
from service.prompt.tokenizer import SentencePieceTokenizer, special_names

IDS = TokenIds()
QUERY_NUM = 2
IMAGE = "[image]" + "[0]" * QUERY_NUM + "[/image]"


class CharTokenizer:
    """Reversible: one id per character, specials below 200."""

    vocab_size = 0x110000 + 200

    def encode_text(self, text: str) -> list[int]:
        return [ord(char) + 200 for char in text]

    def piece_bytes(self, token_id: int) -> bytes:
        return chr(token_id - 200).encode()

    def is_special(self, token_id: int) -> bool:
        return token_id < 200


def show(ids: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> str:
    names = {token_id: f"[{name[1:-1]}]" for token_id, name in special_names(IDS).items()} | {0: "[0]"}
    return "".join(names[i] if i < 200 else chr(i - 200) for i in ids.tolist())


def user(*parts: str | int) -> Turn:
    return Turn("user", tuple(TextPart(p) if isinstance(p, str) else ImagePart(p) for p in parts))


def render(*turns: Turn, system: str | None = None, grids: tuple[tuple[int, int] | None, ...] = ()) -> str:
    grids = grids or (None,) * 9
    return show(
        ChatTemplate(CharTokenizer(), IDS, QUERY_NUM).render(Conversation(system, turns), grids).token_ids
    )


A, B = "<用户>", "<AI>"


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (user("hi"), "hi"),
        (user(), ""),
        (user("one", "two"), "one\ntwo"),
        (user(0, "hi"), f"{IMAGE}\nhi"),
        (user("hi", 0), f"{IMAGE}\nhi"),
        (user(0), f"{IMAGE}\n"),
        (user(0, 1, "hi"), f"{IMAGE}\n{IMAGE}\nhi"),
        (user("one", 0, 1, "two"), f"{IMAGE}\n{IMAGE}\none\ntwo"),
        (user("one", 0, "two"), f"{IMAGE}\none\ntwo"),
        (user(0, "and", 1), f"{IMAGE}\nand\n{IMAGE}"),
        (user("first", 0, "and", "then", 1, "why"), f"first\n{IMAGE}\nand\nthen\n{IMAGE}\nwhy"),
        (user(0, "", 1, "hi"), f"{IMAGE}\n{IMAGE}\nhi"),
        (user(" hi \n"), " hi \n"),
    ],
)
def test_order_within_a_turn(turn: Turn, expected: str) -> None:
    assert render(turn) == f"[s]{A}{expected}{B}"


def test_a_conversation() -> None:
    turns = (user("hi"), Turn("assistant", (TextPart("yes"),)), user(0, "what?"))
    assert render(*turns) == f"[s]{A}hi{B}yes{A}{IMAGE}\nwhat?{B}"


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((user("hi"),), f"{A}sys\nhi"),
        ((user(0, "hi"),), f"{A}{IMAGE}\nsys\nhi"),
        ((user("hi", 0),), f"{A}{IMAGE}\nsys\nhi"),
        ((user(0),), f"{A}{IMAGE}\nsys"),
        ((user(0, "and", 1),), f"{A}{IMAGE}\nsys\nand\n{IMAGE}"),
        ((Turn("assistant", (TextPart("I"),)), user("hi")), f"{B}I{A}sys\nhi"),
        ((user("hi"), user("you")), f"{A}sys\nhi{A}you"),
        ((), f"{A}sys"),
    ],
)
def test_the_system_message_leads_the_first_user_text(turns: tuple[Turn, ...], expected: str) -> None:
    assert render(*turns, system="sys") == f"[s]{expected}{B}"


def test_slices_in_rows() -> None:
    text = render(user(0, "hi"), grids=((3, 2),))
    rows = f"{IMAGE * 3}\n{IMAGE * 3}"
    assert text == f"[s]{A}{IMAGE}[slice]{rows}[/slice]\nhi{B}"


def test_slices_are_numbered_row_by_row() -> None:
    template = ChatTemplate(CharTokenizer(), IDS, QUERY_NUM)
    prompt = template.render(Conversation(None, (user(0),)), [(3, 2)])
    assert [slots.slice_index for slots in prompt.image_slots] == list(range(7))
    starts = [slots.start for slots in prompt.image_slots]
    assert starts == sorted(starts)


def test_slots_say_which_slice_they_are() -> None:
    template = ChatTemplate(CharTokenizer(), IDS, QUERY_NUM)
    conversation = Conversation(None, (user(0, 1, "hi"), user(2)))
    prompt = template.render(conversation, [None, (1, 2), None])
    assert [(s.image_index, s.slice_index) for s in prompt.image_slots] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
    ]
    for slots in prompt.image_slots:
        around = prompt.token_ids[slots.start - 1 : slots.start + QUERY_NUM + 1].tolist()
        assert around == [IDS.image_start, *[IDS.pad] * QUERY_NUM, IDS.image_end]
    assert (prompt.token_ids == IDS.pad).sum() == len(prompt.image_slots) * QUERY_NUM
    assert prompt.token_ids.dtype == np.int64


MARK_FRAGMENTS = [
    "<用户>",
    "<AI>",
    "<",
    "<用",
    "户>",
    "用户>",
    "用户",
    "<A",
    "I>",
    "AI>",
    ">",
    "\n",
    " ",
    "a",
]
MARK_FRAGMENTS += ["<image>", "</slice>", "<s>", "<unk>", "<reserved_22>", "image>", "<ref"]
Texts = st.lists(st.sampled_from(MARK_FRAGMENTS), max_size=6).map("".join)


def _occurrences(ids: list[int], mark: list[int]) -> int:
    return sum(ids[i : i + len(mark)] == mark for i in range(len(ids)))


def test_the_tokenizer_of_these_tests_has_the_marks_as_the_model_has(
    tokenizer: SentencePieceTokenizer,
) -> None:
    """ "<", the word, ">": cutting behind "<" would give the same three ids."""
    for word in ("用户", "AI"):
        mark = tokenizer.encode_text(f"<{word}>")
        assert len(mark) == 3
        assert tokenizer.encode_text("<") + tokenizer.encode_text(f"{word}>") == mark


@settings(max_examples=60, deadline=None)
@given(
    system=st.none() | Texts,
    turns=st.lists(
        st.tuples(st.sampled_from(["user", "assistant"]), st.lists(Texts | st.just(0), max_size=4)),
        min_size=1,
        max_size=4,
    ),
)
def test_typed_marks_make_no_turns_and_no_slots(
    tokenizer: SentencePieceTokenizer,
    system: str | None,
    turns: list[tuple[Role, list[str | int]]],
) -> None:
    conversation = Conversation(system, tuple(Turn(role, user(*parts).parts) for role, parts in turns))
    prompt = ChatTemplate(tokenizer, IDS, QUERY_NUM).render(conversation, [(2, 1)])
    ids = prompt.token_ids.tolist()

    num_images = sum(part == 0 for _, parts in turns for part in parts)
    assert len(prompt.image_slots) == 3 * num_images
    assert sum(token_id == IDS.image_start for token_id in ids) == 3 * num_images
    assert sum(token_id == IDS.slice_end for token_id in ids) == num_images
    assert sum(token_id == IDS.pad for token_id in ids) == 3 * num_images * QUERY_NUM
    assert sum(token_id in (IDS.bos, IDS.eos) for token_id in ids) == 1
    assert not any(IDS.ref_start <= token_id <= IDS.point_end for token_id in ids)

    # A mark of ours can melt into typed brackets beside it, as in the original; none can come of them.
    roles = [role for role, _ in turns] + ["assistant"]
    if system and "user" not in roles:
        roles.append("user")
    assert _occurrences(ids, tokenizer.encode_text("<用户>")) <= roles.count("user")
    assert _occurrences(ids, tokenizer.encode_text("<AI>")) <= roles.count("assistant")


@pytest.mark.parametrize("mark", ["<用户>", "<AI>"])
def test_a_typed_mark_keeps_its_text(tokenizer: SentencePieceTokenizer, mark: str) -> None:
    conversation = Conversation(None, (user(f"a{mark}b"),))
    ids = ChatTemplate(tokenizer, IDS, QUERY_NUM).render(conversation, []).token_ids.tolist()
    assert _occurrences(ids, tokenizer.encode_text(mark)) == 1
    text = b"".join(tokenizer.piece_bytes(token_id) for token_id in ids[1:]).decode()
    assert text == f"<用户>a{mark}b<AI>"


def test_a_mark_split_over_two_parts_stays_split(tokenizer: SentencePieceTokenizer) -> None:
    conversation = Conversation("x<用", (user("户>a<A", "I>b"),))
    ids = ChatTemplate(tokenizer, IDS, QUERY_NUM).render(conversation, []).token_ids.tolist()
    assert _occurrences(ids, tokenizer.encode_text("<用户>")) == 1
    assert _occurrences(ids, tokenizer.encode_text("<AI>")) == 1
