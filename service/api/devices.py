"""GET /v1/devices: what runs where."""

from fastapi import APIRouter

from service.api.deps import ReadyGenerator, ServiceAvailability
from service.api.documentation import errors
from service.protocol.device_list import DeviceList

router = APIRouter(prefix="/v1/devices", tags=["devices"])


@router.get("", summary="List the models' devices, precisions and cache sizes", responses=errors(401, 503))
async def list_devices(generator: ReadyGenerator, availability: ServiceAvailability) -> DeviceList:
    return DeviceList(data=availability.devices)
