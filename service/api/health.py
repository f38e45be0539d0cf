"""GET and HEAD /health/live, /health/ready and /health, for orchestrators; need no API key."""

from fastapi import APIRouter

from service.api.deps import ReadyGenerator
from service.api.documentation import errors
from service.protocol.health import Health

_OPEN: dict[str, list[str]] = {"security": []}  # no key is asked for

router = APIRouter(prefix="/health", tags=["health"])


@router.head("/live", include_in_schema=False)
@router.get("/live", summary="Is the process alive?", openapi_extra=_OPEN)
async def live() -> Health:
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="Has a generation succeeded, and are requests taken?",
    responses=errors(503),
    openapi_extra=_OPEN,
)
async def ready(generator: ReadyGenerator) -> Health:
    return Health()


@router.head("", include_in_schema=False)
@router.get(
    "",
    summary="The same as /health/ready, at the path vLLM's clients ask",
    responses=errors(503),
    openapi_extra=_OPEN,
)
async def health(generator: ReadyGenerator) -> Health:
    return Health()
