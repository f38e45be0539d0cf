"""MiniCPM-V-2 served over OpenAI-style HTTP with OpenVINO. Never imports torch or transformers."""

import sys

# `import openvino` reports itself to a public analytics service, unless this package of its dependencies
# cannot be imported; then it uses its own stub. A server and an offline converter phone nobody:
# docs/decisions/0007-no-telemetry.md.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
