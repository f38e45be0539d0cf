"""What routes are given: the configuration of the API and the way to the generator."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from service.generation.availability import Availability
from service.generation.generator import Generator


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """What the HTTP side must know; times in seconds."""

    model_name: str  # the id clients use
    created: int  # unix seconds: when the artifacts were made
    system_fingerprint: str
    api_keys: Sequence[str] = field(default=(), repr=False)
    cors_origins: Sequence[str] = ()
    route_prefix: str = ""  # "/path" that may stand in front of every route
    root_path: str = ""  # "/path" that a gateway has taken off
    max_body_bytes: int = 64 << 20
    body_timeout_s: float = 120.0
    ping_interval_s: float = 15.0
    send_timeout_s: float = 120.0  # how long a client may take nothing of its stream


# Coroutines, though they wait for nothing: FastAPI runs plain functions on threads of its own.


async def _config(request: Request) -> ApiConfig:
    config: ApiConfig = request.app.state.config
    return config


async def _availability(request: Request) -> Availability:
    availability: Availability = request.app.state.availability
    return availability


Config = Annotated[ApiConfig, Depends(_config)]
ServiceAvailability = Annotated[Availability, Depends(_availability)]


async def _generator(availability: ServiceAvailability) -> Generator:
    return availability.require_generator()


ReadyGenerator = Annotated[Generator, Depends(_generator)]
