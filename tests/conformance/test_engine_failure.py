"""An engine that fails: everybody is told, readiness goes, the process ends to be started anew."""

import asyncio

import httpx
import pytest

from service.app import _Service
from service.artifacts import read_manifest
from service.engine.batch import Batch
from service.errors import EngineError
from service.settings import EMBEDDED_MODEL_DIR, read_settings
from tests.conformance.wire import CHAT, ask
from tests.live_server import free_port


async def _until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while not await _is_ready(client):
            await asyncio.sleep(0.05)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx.TransportError:  # not listening yet
        return False


async def test_a_failed_engine_answers_and_ends_the_service(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    service = _Service(read_settings(["--port", str(port)]), read_manifest(EMBEDDED_MODEL_DIR))
    running = asyncio.create_task(service.run())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        await _until_ready(client)

        def fail(batch: Batch) -> None:
            raise RuntimeError("a secret of the device")

        assert service._models is not None
        service._models.router.engines[0]._step_loop._runner.run = fail  # type: ignore[assignment, method-assign]
        reply = await client.post(CHAT, json=ask())
        assert reply.status_code == 500
        assert "secret" not in reply.text
        assert not await _is_ready(client)
    with pytest.raises(EngineError):
        await asyncio.wait_for(running, 30)
    assert "secret" not in caplog.text
