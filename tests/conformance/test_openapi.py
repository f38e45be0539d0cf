"""Requests made from the document, good and bad: every reply is one that it describes, and none is a 5xx."""

from typing import Any

import schemathesis
from hypothesis import settings
from schemathesis.checks import CHECKS, load_all_checks

from service.api.application import create_api
from service.generation.availability import Availability
from tests.conformance.scripted_service import ScriptedService, api_config

load_all_checks()
# What one field means for another, how large the vocabulary is, whether bytes are an image: no schema tells.
_BEYOND_SCHEMAS: list[Any] = [CHECKS.get_one("positive_data_acceptance")]

schema = schemathesis.openapi.from_dict(create_api(api_config(), Availability()).openapi())


@schema.parametrize()
@settings(max_examples=30, deadline=None)
def test_replies_are_as_documented(case: schemathesis.Case[Any], shared_service: ScriptedService) -> None:
    case.call_and_validate(base_url=shared_service.base_url, excluded_checks=_BEYOND_SCHEMAS)
