"""Wait until the service is ready, then print a curl line that asks it about samples/shapes.png.

Started by `make serve` beside the service; ends when the service does.
"""

import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

_IMAGE_URL = """data:image/png;base64,'"$(base64 < samples/shapes.png | tr -d '\\n')"'"""

_ASK = """
Ready. Try, in another terminal, from this directory:

  curl -N http://{host}:{port}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{{
    "stream": true,
    "messages": [{{"role": "user", "content": [
      {{"type": "image_url", "image_url": {{"url": "{image_url}"}}}},
      {{"type": "text", "text": "Where is the red star?"}}]}}]}}'
"""


def main(environment: Mapping[str, str] = os.environ) -> None:
    host = _reachable(environment.get("MINICPMV_HOST", "127.0.0.1"))
    port = environment.get("MINICPMV_PORT", "8000")
    key = ' -H "Authorization: Bearer $KEY"' if environment.get("MINICPMV_API_KEYS") else ""
    service_pid = os.getppid()
    while not _is_ready(f"http://{host}:{port}/health/ready"):
        if os.getppid() != service_pid:
            return
        time.sleep(0.2)
    print(_ASK.format(host=host, port=port, key=key, image_url=_IMAGE_URL), flush=True)


def _reachable(host: str) -> str:
    """Where a server that listens on `host` answers, as it stands in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _is_ready(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy reaches this machine
    try:
        with direct.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
