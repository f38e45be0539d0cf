"""Everything an operator can set, by MINICPMV_* variable or --flag; knows only how to read and check it."""

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.artifacts import WeightFormat
from service.errors import StartupError

PREFIX = "MINICPMV_"
EMBEDDED_MODEL_DIR = Path(__file__).parent / "embedded_model"
MIN_API_KEY_LENGTH = 16

_MIB = 1 << 20
_DEVICE = re.compile(r"[A-Z][A-Z0-9_]*(\.[0-9]+)?")
_HOST = re.compile(r"(https?://)?([\w-]+(\.[\w-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_PATH = r"^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$"  # no slash at the end, no segment that begins with a dot


class Settings(BaseSettings):
    """Built once in `__main__`; only app.py reads it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    model_dir: Path = Field(
        EMBEDDED_MODEL_DIR, description="directory written by `python -m convert export`; default: embedded"
    )
    weights: WeightFormat = Field("int8", description="weight format: fp16, int8 or int4")
    device: Annotated[tuple[str, ...], NoDecode] = Field(
        ("CPU",), description="comma-separated OpenVINO devices, an engine on each, e.g. GPU.0,GPU.1"
    )
    image_device: str | None = Field(
        None, description="OpenVINO device of the image encoder; default: the first of DEVICE"
    )
    runner: Literal["auto", "paged", "stateful"] = Field(
        "auto", description="paged: many requests at once; stateful: one by one; auto: paged if a device can"
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 in a container")
    port: int = Field(8000, ge=1, le=65535, description="TCP port to listen on")
    route_prefix: str | None = Field(
        None, pattern=_PATH, description="path such as /openai below which every route can be reached as well"
    )
    root_path: str | None = Field(
        None,
        pattern=_PATH,
        description="path such as /llm that a gateway takes off before it passes requests on",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated keys of at least 16 characters; none: no key is asked for"
    )
    api_keys_file: Path | None = Field(None, description="file with one more key a line")
    model_name: str | None = Field(
        None, min_length=1, max_length=256, description="model id clients use; default: the manifest's"
    )
    kv_cache_precision: Literal["u8", "f16", "bf16", "f32"] = Field(
        "u8", description="element type of the KV cache"
    )
    inference_precision: Literal["f32", "f16", "bf16"] | None = Field(
        None,
        description="arithmetic of the models; default: f32 on CPU, else the device's own; f32: exact runs",
    )
    dynamic_quantization_group_size: int | None = Field(
        None,
        ge=0,
        description="channels of an activation that share a scale where it is rounded to 8 bits to meet "
        "compressed weights, 0: no rounding; default: on a CPU 128, no more than the weights' own groups",
    )
    kv_cache_size: ByteSize | None = Field(
        None,
        gt=0,
        description="memory for the KV cache on each device, e.g. 2GiB; default: a share of the memory limit",
    )
    image_cache_size: ByteSize = Field(
        ByteSize(256 * _MIB), ge=0, description="memory for encoded image slices that may come again; 0: none"
    )
    max_num_seqs: int = Field(
        32, ge=1, le=1024, description="answers and beams an engine generates at the same time"
    )
    max_num_batched_tokens: int = Field(512, ge=1, le=65536, description="tokens computed in one step")
    enable_prefix_caching: bool = Field(
        True, description="whether requests share the cached keys and values of equal beginnings"
    )
    num_speculative_tokens: int = Field(
        0,
        ge=0,
        le=32,
        description="tokens of greedy answers guessed from what stands before, checked in one step; 0: none",
    )
    max_queue: int = Field(128, ge=0, le=65536, description="requests that may wait beyond max_num_seqs")
    max_body_bytes: ByteSize = Field(ByteSize(64 * _MIB), gt=0, description="largest request body")
    max_images: int = Field(16, ge=0, le=1024, description="images in one request")
    max_image_bytes: ByteSize = Field(ByteSize(20 * _MIB), gt=0, description="largest image file")
    max_image_pixels: int = Field(40_000_000, ge=1, description="pixels of one image")
    max_image_side: int = Field(16384, ge=1, description="width or height of one image")
    max_image_aspect_ratio: int = Field(200, ge=1, description="longer by shorter side of one image")
    max_total_image_pixels: int = Field(120_000_000, ge=1, description="pixels of all images of a request")
    image_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated hosts to fetch images from, https unless they begin with http://, "
        "e.g. images.example.com,http://store.example.com:9000; none: only data URLs are taken",
    )
    image_hosts_may_be_private: bool = Field(
        False, description="whether IMAGE_HOSTS may have addresses of private networks or of this machine"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma-separated origins whose pages may call the API; * for all"
    )
    ping_interval: float = Field(15.0, gt=0, le=3600, description="seconds between pings of a silent stream")
    drain_timeout: float = Field(30.0, ge=0, le=86400, description="seconds running answers get on SIGTERM")
    cache_dir: Path | None = Field(
        None,
        description="directory of the service's own where compiled models are kept between starts; "
        "default: none are",
    )
    allow_golden_mismatch: bool = Field(
        False, description="whether to serve on a device whose golden answer is not the artifact's"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="log threshold")

    @field_validator("device", "api_keys", "cors_origins", "image_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key) < MIN_API_KEY_LENGTH for key in keys):
            raise ValueError(f"a key needs at least {MIN_API_KEY_LENGTH} characters")
        return keys

    @field_validator("device")
    @classmethod
    def _devices(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        if not devices:
            raise ValueError("name at least one device")
        return tuple(_checked_device(device, "prompts and KV caches have any length") for device in devices)

    @field_validator("image_hosts")
    @classmethod
    def _image_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if _HOST.fullmatch(host) is None:
                raise ValueError(
                    "a host is written like images.example.com, images.example.com:8443 or "
                    "http://images.example.com: without a path, a user, a wildcard or a dot at its end"
                )
        return hosts

    @field_validator("image_device")
    @classmethod
    def _image_device(cls, device: str | None) -> str | None:
        return None if device is None else _checked_device(device, "slices have dozens of sizes")

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


def _checked_device(device: str, not_fixed: str) -> str:
    """docs/decisions/0012-devices.md; `not_fixed` is what an NPU cannot do there."""
    if device.split(".")[0] == "NPU":
        raise ValueError(f"an NPU runs graphs of fixed shapes only, and {not_fixed}: set CPU or GPU")
    if _DEVICE.fullmatch(device) is None:
        raise ValueError(
            "a device is named like CPU, GPU or GPU.1, several are separated by commas; "
            "combinations (HETERO:, MULTI:, AUTO:) are not taken"
        )
    return device


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message} (see --help)")


def read_settings(arguments: Sequence[str]) -> Settings:
    """Settings from flags, then variables, then defaults.

    Raises StartupError, one line that names the flag or variable, for a bad or unknown one. `--help` prints
    all of them and exits.
    """
    parsed, unknown = _parser().parse_known_args(arguments)
    if unknown:  # its name alone: a value could be a key
        raise StartupError(f"{unknown[0].partition('=')[0]}: no such flag (see python -m service --help)")
    given = {name: value for name, value in vars(parsed).items() if value is not None}
    _refuse_unknown(os.environ)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        source = _flag(name) if name in given else f"{PREFIX}{name.upper()}"
        raise StartupError(f"{source}: {first['msg'].removeprefix('Value error, ')}") from None
    return _with_keys_of_file(settings)


def _with_keys_of_file(settings: Settings) -> Settings:
    if settings.api_keys_file is None:
        return settings
    try:
        lines = settings.api_keys_file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise StartupError(f"{PREFIX}API_KEYS_FILE: {settings.api_keys_file} cannot be read") from None
    if not lines or any(len(line) < MIN_API_KEY_LENGTH for line in lines):
        raise StartupError(
            f"{PREFIX}API_KEYS_FILE: one key of at least {MIN_API_KEY_LENGTH} characters a line is needed"
        )
    keys = (*settings.api_keys, *(SecretStr(line) for line in lines))
    return settings.model_copy(update={"api_keys": keys})


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise StartupError(f"{name}: no such setting (see python -m service --help)")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flags() -> Iterator[tuple[str, FieldInfo]]:
    # A key on the command line is readable by every user of the machine.
    yield from ((name, field) for name, field in Settings.model_fields.items() if name != "api_keys")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m service",
        description="Serve MiniCPM-V-2 over OpenAI-style HTTP. Every setting is a variable or a flag.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=6, width=100),
    )
    for name, field in _flags():
        parser.add_argument(_flag(name), metavar="VALUE", dest=name, help=_help(name, field))
    keys = Settings.model_fields["api_keys"]
    parser.epilog = f"By variable only: {PREFIX}API_KEYS: {keys.description}."
    return parser


def _help(name: str, field: FieldInfo) -> str:
    default: Any = field.default
    shown = "" if default in (None, (), EMBEDDED_MODEL_DIR) else f"; default: {_readable(default)}"
    return f"{PREFIX}{name.upper()}: {field.description}{shown}".replace("%", "%%")


def _readable(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(default)
    return default.human_readable() if isinstance(default, ByteSize) else str(default)
