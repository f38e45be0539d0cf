"""Decides where models run and what share of the host each engine gets; compiles nothing."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.engine.language_model import DeviceConfig
from service.errors import StartupError
from service.host_limits import memory_limit_bytes, num_cores

logger = logging.getLogger(__name__)

# Channels of an activation that share a scale where a CPU rounds it to 8 bits to multiply it by compressed
# weights: docs/decisions/0029-activation-groups.md.
_ACTIVATION_GROUP_SIZE = 128

_KV_CACHE_SHARE = 4  # by default the engines' KV caches take a quarter of the memory there is


@dataclass(frozen=True, slots=True)
class Precisions:
    """OpenVINO's names; inference None: f32 on a CPU, else the device's own."""

    kv_cache: str
    inference: str | None
    weight_group_size: int | None = None  # see Variant.weight_group_size
    activation_group_size: int | None = None  # 0: activations are not rounded; None: what fits the device


def place_engines(
    devices: Sequence[str], precisions: Precisions, cache_dir: Path | None
) -> tuple[DeviceConfig, ...]:
    """One configuration for each engine; those on the CPU divide its cores."""
    cores, num_on_cpu = num_cores(), sum(_physical(device) == "CPU" for device in devices)
    threads = max(1, cores // num_on_cpu) if num_on_cpu else cores
    # OpenVINO counts the machine's cores; more threads than the container's share fight for it.
    is_cut = num_on_cpu > 1 or cores < (os.cpu_count() or 1)
    logger.info(
        "host: %d of %s cores, %d MiB of memory; CPU threads for each engine: %d",
        cores,
        os.cpu_count(),
        memory_limit_bytes() >> 20,
        threads,
    )
    return tuple(
        DeviceConfig(
            device=device,
            kv_cache_precision=precisions.kv_cache,
            inference_precision=_inference_precision(device, precisions),
            num_threads=threads if is_cut else None,
            cache_dir=cache_dir,
            extra=_activation_groups(device, precisions, precisions.weight_group_size)
            | _pinning(device, num_on_cpu),
        )
        for device in devices
    )


def image_encoder_properties(
    device: str, precisions: Precisions, cache_dir: Path | None
) -> dict[str, object]:
    """OpenVINO's properties for the image encoder, which has all cores; beside answers it gives way."""
    properties: dict[str, object] = dict(_activation_groups(device, precisions, None))
    precision, cores = _inference_precision(device, precisions), num_cores()
    if precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = precision
    if device == "CPU" and cores < (os.cpu_count() or 1):
        properties["INFERENCE_NUM_THREADS"] = cores
    if cache_dir is not None:
        properties["CACHE_DIR"] = str(cache_dir)
    return properties


def kv_cache_bytes(devices: Sequence[str], device: str, budget: int | None, most_bytes: int) -> int:
    """Memory for the KV cache of one of the engines on `device`.

    `budget` is for each device, engines on the same one share it; None: a part of the memory limit, shared
    by all engines, and no more than the `most_bytes` one can use. Raises StartupError if the CPU's budget is
    more than the memory limit.
    """
    limit = memory_limit_bytes()
    if budget is None:
        return min(most_bytes, limit // _KV_CACHE_SHARE // len(devices))
    if _physical(device) == "CPU" and budget > limit:
        raise StartupError(
            f"MINICPMV_KV_CACHE_SIZE: {budget >> 20} MiB is more than this machine or container has "
            f"({limit >> 20} MiB)"
        )
    return budget // sum(_physical(other) == _physical(device) for other in devices)


def open_cache_dir(cache_dir: Path | None, artifacts_digest: str) -> Path | None:
    """The folder within `cache_dir` for these artifacts, made and tried. Raises StartupError if it cannot be.

    A folder of their own, because OpenVINO's key for a compiled model need not cover all of its weights.
    """
    if cache_dir is None:
        return None
    folder = cache_dir / artifacts_digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StartupError(
            f"MINICPMV_CACHE_DIR: {cache_dir} cannot be written to ({reason}): name a directory of the "
            "service's own, or none"
        ) from None
    return folder


def _inference_precision(device: str, precisions: Precisions) -> str | None:
    """docs/decisions/0008-precision.md: a CPU with bf16 instructions would use them unasked."""
    return precisions.inference or ("f32" if device == "CPU" else None)


def _activation_groups(device: str, precisions: Precisions, weight_group_size: int | None) -> dict[str, str]:
    """Of 128 or the weights' own; larger ones are slower than OpenVINO's default of 32. Exact runs: none."""
    size = precisions.activation_group_size
    if size is None and precisions.inference == "f32":
        size = 0
    if size is None and device == "CPU":
        size = min(_ACTIVATION_GROUP_SIZE, weight_group_size or _ACTIVATION_GROUP_SIZE)
    return {} if size is None else {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(size)}


def _pinning(device: str, num_on_cpu: int) -> dict[str, str]:
    """Pinned, the threads of every engine would sit on the same first cores."""
    return {"ENABLE_CPU_PINNING": "NO"} if _physical(device) == "CPU" and num_on_cpu > 1 else {}


def _physical(device: str) -> str:
    """AUTO may end up on the CPU, so it is counted there."""
    return {"GPU": "GPU.0", "AUTO": "CPU"}.get(device, device)
