"""The application as it is put together."""

import inspect

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from service.api import chat, completions, devices, health, models, responses, tokenization, version


def _calls(dependant: Dependant) -> list[object]:
    return [dependant.call, *(call for inner in dependant.dependencies for call in _calls(inner))]


def test_every_route_and_what_it_is_given_runs_on_the_event_loop() -> None:
    """FastAPI gives plain functions to up to forty threads, off the loop that owns what they touch."""
    routers = (
        chat.router,
        completions.router,
        responses.router,
        models.router,
        devices.router,
        tokenization.router,
        version.router,
        health.router,
    )
    routes = [route for router in routers for route in router.routes]
    calls = [call for route in routes if isinstance(route, APIRoute) for call in _calls(route.dependant)]
    assert len(calls) > len(routes)
    assert all(inspect.iscoroutinefunction(call) for call in calls)
