"""The real service in a process of its own on a free port of the loopback interface, as users run it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

REPOSITORY = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S = 600.0  # a fuse: a process that ends is seen at once, one on a busy machine waits long


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class LiveServer:
    """`python -m service` with MINICPMV_<NAME>=value for every keyword; ready inside the context."""

    def __init__(self, **settings: str | int | Path) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._settings = {f"MINICPMV_{name.upper()}": str(value) for name, value in settings.items()}
        self._log: list[str] = []

    def __enter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MINICPMV_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=inherited | self._settings | {"MINICPMV_PORT": str(self.port)},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> str:
        """SIGTERM, as a container is stopped; returns everything the process printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=60)
        self._log.append(output or "")
        return "".join(self._log)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                output, _ = self.process.communicate()
                raise RuntimeError(f"the service ended with {self.process.returncode}:\n{output}")
            try:
                if httpx.get(f"{self.base_url}/health/ready", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise RuntimeError("the service was not ready in time")
