"""Random token streams over the embedded vocabulary, the text each means, and an engine that says them."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import sentencepiece
from hypothesis import strategies as st

from service.artifacts import TokenIds
from service.engine.token_events import EngineRequest, TokenEvent, TokenLogprobs
from service.prompt.tokenizer import SentencePieceTokenizer
from service.settings import EMBEDDED_MODEL_DIR

TOKEN_IDS = TokenIds()
TOKENIZER = SentencePieceTokenizer(EMBEDDED_MODEL_DIR / "tokenizer.model", TOKEN_IDS)
_ORACLE = sentencepiece.SentencePieceProcessor(model_file=str(EMBEDDED_MODEL_DIR / "tokenizer.model"))
_IDS = range(TOKENIZER.vocab_size)
_BYTES = [token_id for token_id in _IDS if _ORACLE.IsByte(token_id)]
_SPECIALS = [token_id for token_id in _IDS if TOKENIZER.is_special(token_id)]
_SPACES = TOKENIZER.encode_text(" \n")


@dataclass(frozen=True, slots=True)
class RandomAnswer:
    """Ids as the model may draw them, cut into events; it ends by eos or by its length."""

    ids: tuple[int, ...]
    sizes: tuple[int, ...]
    by_eos: bool
    has_logprobs: bool = False

    def events(self, request_id: str = "r") -> Iterator[TokenEvent]:
        ids = (*self.ids, TOKEN_IDS.eos) if self.by_eos else self.ids
        at = 0
        for size in (*self.sizes, len(ids)):
            piece = ids[at : at + size]
            at += len(piece)
            is_last = at == len(ids)
            logprobs = tuple(TokenLogprobs(-1.0) for _ in piece) if self.has_logprobs else ()
            if is_last:
                reason, stop = ("stop", TOKEN_IDS.eos) if self.by_eos else ("length", None)
                yield TokenEvent(request_id, piece, reason, stop, logprobs=logprobs)  # type: ignore[arg-type]
                return
            yield TokenEvent(request_id, piece, logprobs=logprobs)


def text_of(ids: tuple[int, ...]) -> str:
    """What sentencepiece itself says these ids mean; specials mean nothing, and a box no more than they."""
    text, box = "", None
    for is_special, stretch in groupby(ids, TOKENIZER.is_special):
        if not is_special:
            decoded = _ORACLE.DecodeIds(list(stretch))
            text, box = (text + decoded, None) if box is None else (text, box + decoded)
            continue
        for token_id in stretch:
            if token_id == TOKEN_IDS.box_start:
                box = box or ""
            elif token_id == TOKEN_IDS.box_end:
                box = None
    return text + (box or "")


def _words(text: str) -> list[int]:
    return TOKENIZER.encode_text(text)


_TEXT = st.text(alphabet="ab .,你好é🙂\n\u2028\x00", max_size=6).map(_words)
_ANY = st.lists(st.sampled_from(_IDS), max_size=4)
_BROKEN = st.lists(st.sampled_from(_BYTES), max_size=4)


def answers(*, specials: bool = True) -> st.SearchStrategy[RandomAnswer]:
    """Texts, bytes that are no UTF-8, spaces, any id of the vocabulary, specials if wanted."""
    kinds = [_TEXT, _ANY, _BROKEN, st.lists(st.sampled_from(_SPACES), max_size=2)]
    if specials:
        kinds.append(st.lists(st.sampled_from(_SPECIALS), max_size=2))
    ids = st.lists(st.one_of(kinds), max_size=6).map(lambda parts: [one for part in parts for one in part])
    if not specials:
        ids = ids.map(lambda all_ids: [one for one in all_ids if not TOKENIZER.is_special(one)])
    return st.builds(
        RandomAnswer,
        ids=ids.map(tuple),
        sizes=st.lists(st.integers(1, 4), max_size=30).map(tuple),
        by_eos=st.booleans(),
    )


@st.composite
def stops_for(draw: st.DrawFn, answer: RandomAnswer) -> list[str]:
    """Up to three stop strings, most of them cut out of the answer."""
    text = text_of(answer.ids)
    cut = st.integers(0, max(0, len(text) - 1)).flatmap(
        lambda start: st.integers(1, 5).map(lambda size: text[start : start + size])
    )
    stops = st.one_of(cut, st.text(alphabet="ab 你\ufffd", max_size=3)).filter(bool)
    return draw(st.lists(stops, max_size=3))


@dataclass(slots=True)
class RandomEngine:
    """Says `answer`, whoever asks."""

    answer: RandomAnswer = field(default_factory=lambda: RandomAnswer((), (), by_eos=True))
    is_healthy: bool = True
    max_model_len: int = 4096
    max_num_seqs: int = 1

    def max_new_tokens(self, num_prompt_tokens: int, num_seqs: int = 1) -> int:
        return self.max_model_len - num_prompt_tokens

    def abort(self, request_id: str, index: int | None = None) -> None:
        """A stop string was found; its stream is closed as well."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        for event in self.answer.events(request.request_id):
            yield event
