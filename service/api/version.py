"""GET /version: which release answers."""

from importlib.metadata import version

from fastapi import APIRouter

from service.api.documentation import errors
from service.protocol.version import Version

VERSION = version("minicpmv-openvino")

router = APIRouter(tags=["version"])


@router.get("/version", name="version", summary="The server's version", responses=errors(401))
async def read_version() -> Version:
    return Version(version=VERSION)
