"""Shares of the host, and where compiled models are kept."""

from pathlib import Path

import pytest

from service import placement
from service.errors import StartupError
from service.placement import (
    Precisions,
    image_encoder_properties,
    kv_cache_bytes,
    open_cache_dir,
    place_engines,
)

DEFAULT = Precisions("u8", None)
MANY = 1 << 60


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "num_cores", lambda: 6)
    monkeypatch.setattr(placement, "memory_limit_bytes", lambda: 8 << 30)
    monkeypatch.setattr("os.cpu_count", lambda: 6)


def _threads(*devices: str) -> list[int | None]:
    return [place.num_threads for place in place_engines(devices, DEFAULT, None)]


def test_engines_on_the_cpu_divide_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _threads("CPU") == [None]  # all there are: the plug-in's own default
    assert _threads("CPU", "CPU") == [3, 3]
    assert _threads("CPU", "AUTO", "CPU", "CPU") == [1] * 4
    assert _threads(*["CPU"] * 9) == [1] * 9
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert _threads("CPU") == [6]
    assert _threads("GPU.0", "GPU.1") == [6, 6]  # for what they run on the CPU


def test_engines_beside_one_another_on_the_cpu_are_not_pinned() -> None:
    (alone,) = place_engines(("CPU",), DEFAULT, None)
    assert "ENABLE_CPU_PINNING" not in alone.extra
    for place in place_engines(("CPU", "CPU"), DEFAULT, None):
        assert place.extra["ENABLE_CPU_PINNING"] == "NO"


def test_precision() -> None:
    cpu, gpu = place_engines(("CPU", "GPU"), DEFAULT, None)
    assert (cpu.inference_precision, gpu.inference_precision) == ("f32", None)
    assert gpu.extra == {}, "a device's own default"
    (exact,) = place_engines(("GPU",), Precisions("f32", "f32"), None)
    assert exact.inference_precision == "f32"
    assert exact.extra == {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    assert image_encoder_properties("GPU", DEFAULT, None) == {}
    assert image_encoder_properties("CPU", DEFAULT, Path("x")) == {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128",
        "CACHE_DIR": "x",
    }


@pytest.mark.parametrize(
    ("weights", "asked", "inference", "expected"),
    [
        (None, None, None, "128"),
        (64, None, None, "64"),  # no larger than the weights' groups
        (256, None, None, "128"),
        (64, 32, None, "32"),
        (64, 0, None, "0"),
        (64, None, "f32", "0"),  # said aloud: exact
        (64, 32, "f32", "32"),
        (64, None, "bf16", "64"),
    ],
)
def test_activation_groups(
    weights: int | None, asked: int | None, inference: str | None, expected: str
) -> None:
    precisions = Precisions("u8", inference, weights, asked)
    (place,) = place_engines(("CPU",), precisions, None)
    assert place.extra == {"DYNAMIC_QUANTIZATION_GROUP_SIZE": expected}
    encoder = image_encoder_properties("CPU", precisions, None)["DYNAMIC_QUANTIZATION_GROUP_SIZE"]
    assert encoder == ("128" if expected == "64" else expected), "the encoder's weights have no groups"


@pytest.mark.parametrize(
    ("devices", "device", "budget", "expected"),
    [
        (("CPU",), "CPU", 1000, 1000),
        (("CPU", "CPU"), "CPU", 1000, 500),
        (("CPU", "GPU.0", "GPU.1"), "GPU.1", 1000, 1000),
        (("GPU", "GPU.0"), "GPU", 1000, 500),
        (("CPU",), "CPU", None, 2 << 30),
        (("CPU", "CPU"), "CPU", None, 1 << 30),
    ],
)
def test_kv_cache(devices: tuple[str, ...], device: str, budget: int | None, expected: int) -> None:
    assert kv_cache_bytes(devices, device, budget, MANY) == expected


def test_kv_cache_is_no_larger_than_what_can_be_used_nor_than_the_memory() -> None:
    assert kv_cache_bytes(("CPU",), "CPU", None, 77) == 77
    with pytest.raises(StartupError, match="MINICPMV_KV_CACHE_SIZE"):
        kv_cache_bytes(("CPU", "CPU"), "CPU", 9 << 30, MANY)


def test_a_cache_directory_has_a_folder_for_each_content(tmp_path: Path) -> None:
    assert open_cache_dir(None, "a") is None
    first, second = (open_cache_dir(tmp_path / "new", name) for name in ("a", "b"))
    assert first is not None
    assert second is not None
    assert first != second
    assert list(first.iterdir()) == []


def test_a_cache_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"MINICPMV_CACHE_DIR: .*file.* cannot be written to"):
        open_cache_dir(tmp_path / "file", "a")
