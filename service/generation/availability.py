"""Whether requests can be taken: loading, ready, draining or failed; knows no HTTP and no signals."""

from typing import Literal

from service.errors import NotReadyError
from service.generation.generator import Generator
from service.protocol.device_list import DeviceCard

State = Literal["loading", "ready", "draining", "failed"]

_REASONS: dict[State, str] = {
    "loading": "the model is loading; try again in a few seconds",
    "draining": "the service is shutting down",
    "failed": "the engine has failed",
}


class Availability:
    """Holds the generator once it has proved itself. Belongs to the event loop."""

    def __init__(self) -> None:
        self._state: State = "loading"
        self._generator: Generator | None = None
        self.devices: tuple[DeviceCard, ...] = ()  # what runs where, once ready

    @property
    def state(self) -> State:
        if self._state == "ready" and not (self._generator and self._generator.is_healthy):
            return "failed"
        return self._state

    def open(self, generator: Generator, devices: tuple[DeviceCard, ...] = ()) -> None:
        """Take requests from now on; no effect once draining."""
        if self._state == "loading":
            self._generator, self._state, self.devices = generator, "ready", devices

    def begin_drain(self) -> None:
        """Refuse new requests; those under way go on."""
        self._state = "draining"

    def fail(self) -> None:
        """Loading has failed for good."""
        self._state = "failed"

    def end_running(self) -> None:
        """End the requests under way."""
        if self._generator is not None:
            self._generator.abort_all()

    def require_generator(self) -> Generator:
        """The generator; raises NotReadyError unless ready."""
        state = self.state
        if state != "ready" or self._generator is None:
            raise NotReadyError(_REASONS[state])
        return self._generator
