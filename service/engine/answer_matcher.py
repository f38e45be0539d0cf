"""Where one answer stands in its grammar, and what may come next; knows no logits but those it masks."""

import logging

import numpy as np
from numpy.typing import NDArray

from service.engine.token_constraint import TokenConstraint

logger = logging.getLogger(__name__)

_MAX_SEARCH_STEPS = 256  # decisions of each walk that looks for a new way to an end
_MAX_STEPS_IN_VAIN = 1024  # of all walks of an answer that found nothing; then it goes the way it knows


class AnswerMatcher:
    """Follows one answer token by token: prepare, mask, settle.

    It always knows a way to an end of the grammar that fits into what is left of max_tokens. A token after
    which it finds none is replaced by the next one of that way.
    """

    __slots__ = (
        "_closing",
        "_end",
        "_mask",
        "_matcher",
        "_num_left",
        "_steps_in_vain",
        "_way",
        "is_cut",
        "is_failed",
    )

    def __init__(
        self, constraint: TokenConstraint, max_tokens: int, end_token_id: int, vocab_size: int
    ) -> None:
        self._matcher = constraint.matcher.deep_copy()
        self._closing = constraint.closing
        self._way = constraint.shortest
        self._num_left = max_tokens
        self._steps_in_vain = 0
        self._end = end_token_id
        self._mask: NDArray[np.uint32] = np.zeros(-(-vocab_size // 32), dtype=np.uint32)
        self.is_cut = False  # an end was imposed on the answer, or a part of it
        self.is_failed = False  # the library has given up: there is no next token

    def fork(self) -> "AnswerMatcher":
        """Another answer that begins like this one, with the same next mask."""
        fork = AnswerMatcher.__new__(AnswerMatcher)
        fork._matcher, fork._mask = self._matcher.deep_copy(), self._mask.copy()
        fork._closing, fork._way, fork._end = self._closing, self._way, self._end
        fork._steps_in_vain = self._steps_in_vain
        fork._num_left, fork.is_cut, fork.is_failed = self._num_left, self.is_cut, self.is_failed
        return fork

    def prepare(self) -> None:
        """Compute which tokens may come next; it depends on the tokens so far only."""
        try:
            self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
            if self._matcher.is_error() or not self._mask.any():
                self._fail(self._matcher.stop_reason())
        except BaseException as error:  # a panic of the library is no Exception
            self._fail(type(error).__name__)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Make the tokens that may not come next impossible: `logits` [vocab_size], in place."""
        allowed = np.unpackbits(self._mask.view(np.uint8), count=len(logits), bitorder="little")
        np.copyto(logits, -np.inf, where=allowed == 0)

    def settle(self, token_id: int) -> int:
        """The token the answer goes on with: `token_id`, which the mask allows, or what ends it in time."""
        try:
            return self._settle(token_id)
        except BaseException as error:  # a panic of the library is no Exception
            self._fail(type(error).__name__)
            return token_id

    def _settle(self, token_id: int) -> int:
        self._num_left -= 1
        if token_id == self._end:
            return token_id
        matcher, way = self._matcher.deep_copy(), None
        if self._steps_in_vain < _MAX_STEPS_IN_VAIN and matcher.consume_token(token_id):
            way = self._closing.find(matcher, self._way, self._num_left, _MAX_SEARCH_STEPS)
        if way is None:
            self._steps_in_vain += min(self._num_left, _MAX_SEARCH_STEPS)
            self.is_cut = True
            token_id, *rest = self._way or (self._end,)
            matcher, way = self._matcher, tuple(rest)
            if token_id != self._end and not matcher.consume_token(token_id):
                self._fail(matcher.stop_reason())
        self._matcher, self._way = matcher, way
        return token_id

    def _fail(self, reason: str) -> None:
        logger.warning("a grammar could not be followed: %s", reason)
        self.is_failed = True
