"""The start-up check of a service on given settings, without the server."""

import asyncio
from pathlib import Path

import pytest

from service.app import _check_golden_answer
from service.artifacts import read_manifest
from service.errors import StartupError
from service.loaded_models import load_models
from service.settings import read_settings

RUNNERS = ("paged", "stateful")
# (inference, KV cache) that CPUs take; "" is the default.
PRECISIONS = [
    *(("", kv) for kv in ("u8", "f16", "f32")),
    *(("f32", kv) for kv in ("u8", "f16", "f32")),
    *(("bf16", kv) for kv in ("u8", "f16", "bf16")),
]


async def pass_the_golden_check(model_dir: Path, **settings: str) -> None:
    """Raises StartupError if an engine fails it; skips where this CPU has no such precision."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if value]
    read = read_settings([f"--model-dir={model_dir}", *flags])
    manifest = read_manifest(model_dir)
    try:
        models = await asyncio.to_thread(load_models, read, manifest, None)
    except StartupError:
        if settings["inference_precision"] != "bf16":
            raise
        pytest.skip("this CPU does not take bf16")
    try:
        await _check_golden_answer(models, read, manifest)
    finally:
        await asyncio.to_thread(models.stop)
