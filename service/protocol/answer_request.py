"""The requests that a generation answers."""

from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.completion_request import CompletionRequest
from service.protocol.responses_request import ResponsesRequest

DialogueRequest = ChatCompletionRequest | ResponsesRequest
AnswerRequest = DialogueRequest | CompletionRequest
