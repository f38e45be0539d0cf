"""Log-probabilities as the client sees them: ids become names and bytes; knows no answer's text."""

from service.artifacts import TokenIds
from service.engine.token_events import TokenLogprobs
from service.prompt.tokenizer import Tokenizer
from service.protocol.chat_response import TokenLogprob, TopLogprob


class LogprobNames:
    """Says what tokens are called and which bytes of text they stand for."""

    def __init__(self, tokenizer: Tokenizer, token_ids: TokenIds, *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._never_shown = {token_ids.pad, token_ids.bos, token_ids.eos}

    def describe(self, token_id: int, logprobs: TokenLogprobs) -> TokenLogprob:
        """One token of an answer and the likeliest in its place."""
        token, content = self._name(token_id)
        return TokenLogprob(
            token=token,
            logprob=logprobs.logprob,
            bytes=content,
            top_logprobs=tuple(self._describe_top(*top) for top in logprobs.top),
        )

    def _describe_top(self, token_id: int, logprob: float) -> TopLogprob:
        token, content = self._name(token_id)
        return TopLogprob(token=token, logprob=logprob, bytes=content)

    def _name(self, token_id: int) -> tuple[str, tuple[int, ...] | None]:
        """(name, bytes of text); specials have no text, but for those that are to be shown."""
        piece = self._tokenizer.piece_bytes(token_id)
        hidden = self._skip_special_tokens or token_id in self._never_shown
        has_text = not (hidden and self._tokenizer.is_special(token_id))
        return piece.decode("utf-8", "replace"), tuple(piece) if has_text else None
