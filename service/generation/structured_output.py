"""From the fields of a request to the grammar of its answers, and what does not go with one."""

import json

from service.engine.token_constraint import TokenConstraint
from service.errors import InvalidValueError, UnsupportedFieldError
from service.generation.choice_parameters import ChoiceParams
from service.generation.grammar import (
    Grammar,
    choice_grammar,
    client_lark_grammar,
    json_schema_grammar,
    regex_grammar,
)
from service.generation.grammar_limits import MAX_SCHEMA_LENGTH
from service.protocol.answer_request import AnswerRequest
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.responses_request import ResponsesRequest
from service.protocol.sampling_fields import ChoiceFields
from service.protocol.structured_output import JsonSchema, ResponseFormat, StructuredOutputs, TextFormat

_FORMAT, _TEXT_FORMAT, _OUTPUTS = "response_format", "text.format", "structured_outputs"
# Each would end answers where the grammar does not, or forbid their end where it asks for one.
NOT_WITH_A_GRAMMAR = ("stop", "stop_token_ids", "min_tokens", "ignore_eos")


def read_grammar(request: AnswerRequest, choices: ChoiceParams) -> Grammar | None:
    """None where answers are free. Raises InvalidValueError for fields that contradict each other or are
    over a limit, UnsupportedFieldError for combinations that are not implemented."""
    grammar = _of_either_format(request)
    if request.structured_outputs is not None:
        if grammar is not None:
            raise InvalidValueError(f"send {_asking_field(grammar)} or {_OUTPUTS}, not both", _OUTPUTS)
        grammar = _of_outputs(request.structured_outputs)
    if grammar is not None:
        _refuse_beside_a_grammar(request, choices, grammar)
    return grammar


def check_length(constraint: TokenConstraint, request: AnswerRequest, max_tokens: int) -> None:
    """Raise InvalidValueError where `max_tokens` tokens are not enough for any answer that is known."""
    needed, field = len(constraint.shortest), _length_field(request)
    if max_tokens < needed:
        raise InvalidValueError(
            f"the answer may have {max_tokens} tokens, but its form needs {needed}: send a larger {field}",
            field,
        )


def _length_field(request: AnswerRequest) -> str:
    if isinstance(request, ResponsesRequest):
        return "max_output_tokens"
    is_new = isinstance(request, ChatCompletionRequest) and request.max_completion_tokens is not None
    return "max_completion_tokens" if is_new else "max_tokens"


def _of_either_format(request: AnswerRequest) -> Grammar | None:
    if isinstance(request, ChoiceFields):
        return None if request.response_format is None else _of_format(request.response_format)
    if request.text is None or request.text.format is None:
        return None
    return _of_text_format(request.text.format)


def _of_text_format(form: TextFormat) -> Grammar | None:
    _check_schema_is_due(form.type, f"{_TEXT_FORMAT}.schema", is_there=form.schema_ is not None)
    if form.schema_ is not None:
        return json_schema_grammar(form.schema_, f"{_TEXT_FORMAT}.schema")
    return json_schema_grammar({"type": "object"}, _TEXT_FORMAT) if form.type == "json_object" else None


def _of_format(form: ResponseFormat) -> Grammar | None:
    _check_schema_is_due(form.type, f"{_FORMAT}.json_schema", is_there=form.json_schema is not None)
    if form.json_schema is not None:
        return json_schema_grammar(form.json_schema.schema_, f"{_FORMAT}.json_schema.schema")
    return json_schema_grammar({"type": "object"}, _FORMAT) if form.type == "json_object" else None


def _check_schema_is_due(kind: str, field: str, *, is_there: bool) -> None:
    if kind == "json_schema" and not is_there:
        raise InvalidValueError(f"the type json_schema needs {field}", field)
    if kind != "json_schema" and is_there:
        raise InvalidValueError(f"{field} goes with the type json_schema only, not with {kind}", field)


def _of_outputs(outputs: StructuredOutputs) -> Grammar:
    grammars = []
    if outputs.json_ is not None:
        param = f"{_OUTPUTS}.json"
        grammars.append(json_schema_grammar(_schema(outputs.json_, param), param))
    if outputs.regex is not None:
        grammars.append(regex_grammar(outputs.regex, f"{_OUTPUTS}.regex"))
    if outputs.choice is not None:
        grammars.append(choice_grammar(outputs.choice, f"{_OUTPUTS}.choice"))
    if outputs.grammar is not None:
        grammars.append(client_lark_grammar(outputs.grammar, f"{_OUTPUTS}.grammar"))
    if len(grammars) != 1:
        raise InvalidValueError(
            f"{_OUTPUTS} must have one of json, regex, choice and grammar",
            grammars[-1].param if grammars else _OUTPUTS,
        )
    return grammars[0]


def _schema(value: JsonSchema | str, param: str) -> JsonSchema:
    if isinstance(value, dict):
        return value
    if len(value) > MAX_SCHEMA_LENGTH:
        raise InvalidValueError(f"the schema has more than {MAX_SCHEMA_LENGTH} characters", param)
    try:
        schema = json.loads(value)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidValueError("the string is not the JSON of an object", param)
    return schema


def _asking_field(grammar: Grammar) -> str:
    """The field that holds all the others of a form."""
    fields = _FORMAT, _TEXT_FORMAT, _OUTPUTS
    return next(field for field in fields if grammar.param.startswith(field))


def _refuse_beside_a_grammar(request: AnswerRequest, choices: ChoiceParams, grammar: Grammar) -> None:
    asked = _asking_field(grammar)
    if choices.beam_search is not None:
        raise UnsupportedFieldError(f"{asked} is not supported in a beam search", asked)
    for name in NOT_WITH_A_GRAMMAR:
        if getattr(request, name):
            raise UnsupportedFieldError(f"{name} is not supported together with {asked}", name)
