"""Where below a gateway the routes stand: a prefix taken off here or by the gateway; knows no route."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import StartupError


class Mount:
    """ASGI middleware, outermost: afterwards `path` begins with `root_path`, as ASGI wants it.

    `route_prefix` may stand in front of every route, and need not. `root_path` is what the gateway has taken
    off: no request shows it, links do.
    """

    def __init__(self, app: ASGIApp, route_prefix: str, root_path: str) -> None:
        self._app = app
        self._route_prefix = route_prefix
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            prefix = self._route_prefix
            is_prefixed = bool(prefix) and scope["path"].startswith(f"{prefix}/")
            scope = {
                **scope,
                "root_path": self._root_path + (prefix if is_prefixed else ""),
                "path": self._root_path + scope["path"],
                "raw_path": self._root_path.encode() + scope["raw_path"],
            }
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path of the route a request asks for, behind whatever stands in front of it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def check_prefix(prefix: str, paths: Iterable[str]) -> None:
    """Raise StartupError for a prefix below which a route stands already: a path would have two meanings."""
    if prefix and any(path == prefix or path.startswith(f"{prefix}/") for path in paths):
        raise StartupError(f"MINICPMV_ROUTE_PREFIX: routes of the API begin with {prefix} already")
