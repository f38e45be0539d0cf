"""Puts routes, middleware and error handlers together; knows neither settings nor models."""

from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.api import chat, completions, devices, health, models, responses, tokenization, version
from service.api.auth import Authentication
from service.api.body_limit import BodyLimit
from service.api.deps import ApiConfig
from service.api.documentation import describe
from service.api.error_handlers import ErrorBoundary, add_error_handlers
from service.api.mount import Mount, check_prefix
from service.api.request_context import RequestContext
from service.generation.availability import Availability

_EXPOSED_HEADERS = ("x-request-id", "retry-after", "openai-processing-ms", "x-should-retry")


def create_api(config: ApiConfig, availability: Availability) -> FastAPI:
    """The ASGI application. Raises StartupError for a route prefix that is a route."""
    app = FastAPI(
        title="MiniCPM-V-2",
        version=version.VERSION,
        description="MiniCPM-V-2 on OpenVINO behind OpenAI's API: chat completions, completions, responses.",
        redirect_slashes=False,
        # docs/decisions/0015-no-documentation-pages.md
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.config = config
    app.state.availability = availability
    for router in (
        chat.router,
        completions.router,
        responses.router,
        models.router,
        devices.router,
        tokenization.router,
        version.router,
        health.router,
    ):
        app.include_router(router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    check_prefix(config.route_prefix, app.openapi()["paths"])
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s)
    app.add_middleware(Authentication, api_keys=config.api_keys)
    app.add_middleware(ErrorBoundary)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),  # clients send any number of X-Stainless-*
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(RequestContext)
    app.add_middleware(Mount, route_prefix=config.route_prefix, root_path=config.root_path)
    return app
