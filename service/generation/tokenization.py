"""Token ids of texts and conversations, and back, without a generation; knows no HTTP."""

from service.errors import InvalidValueError
from service.generation.generator import Generator
from service.generation.request_parameters import check_text_length, refuse_unsupported
from service.generation.tool_offer import read_functions
from service.prompt.token_text import decode_tokens, token_string
from service.prompt.tool_text import offer_text
from service.protocol.tokenization import (
    DetokenizeReply,
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeReply,
    TokenizeTextRequest,
)


async def tokenize(request: TokenizeTextRequest | TokenizeChatRequest, generator: Generator) -> TokenizeReply:
    """Ids of a text as a user types it, or of a whole prompt, whether it fits into the context or not.

    Raises what a chat completion with these messages would before its images are decoded;
    ContextLengthError for a text no context could hold.
    """
    refuse_unsupported(request)
    if isinstance(request, TokenizeTextRequest):
        token_ids = _tokenize_text(request, generator)
    else:
        tools = offer_text(read_functions(request.tools)) if request.tools else None
        token_ids = (await generator.render(request.messages, tools)).token_ids.tolist()
    strings = None
    if request.return_token_strs:
        strings = tuple(token_string(generator.tokenizer, token_id) for token_id in token_ids)
    return TokenizeReply(
        count=len(token_ids),
        max_model_len=generator.max_model_len,
        tokens=tuple(token_ids),
        token_strs=strings,
    )


def detokenize(request: DetokenizeRequest, generator: Generator) -> DetokenizeReply:
    """The ids' text. Raises InvalidValueError for an id outside the vocabulary."""
    for index, token_id in enumerate(request.tokens):
        if token_id >= generator.vocab_size:
            raise InvalidValueError(f"the vocabulary ends at {generator.vocab_size - 1}", f"tokens[{index}]")
    return DetokenizeReply(prompt=decode_tokens(generator.tokenizer, request.tokens))


def _tokenize_text(request: TokenizeTextRequest, generator: Generator) -> list[int]:
    check_text_length(len(request.prompt), generator.max_model_len, "prompt")
    bos = [] if request.add_special_tokens is False else [generator.bos_token_id]
    return bos + generator.tokenizer.encode_text(request.prompt)
