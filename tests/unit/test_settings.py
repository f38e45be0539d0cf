"""Settings from variables and flags; every mistake is one line that names it."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import StartupError
from service.settings import EMBEDDED_MODEL_DIR, PREFIX, Settings, read_settings
from tests.conftest import REPOSITORY

KEY = "0123456789abcdef"


def _read(monkeypatch: pytest.MonkeyPatch, *arguments: str, **variables: str) -> Settings:
    monkeypatch.setattr("os.environ", {f"{PREFIX}{name.upper()}": value for name, value in variables.items()})
    return read_settings(arguments)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(monkeypatch)
    assert settings.model_dir == EMBEDDED_MODEL_DIR
    assert (settings.weights, settings.device, settings.kv_cache_precision) == ("int8", ("CPU",), "u8")
    assert (settings.host, settings.port, settings.api_keys) == ("127.0.0.1", 8000, ())
    assert settings.image_cache_size == 256 << 20
    assert (settings.image_hosts, settings.image_hosts_may_be_private) == ((), False)
    assert settings.num_speculative_tokens == 0


def test_variables_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(
        monkeypatch, "--port", "9001", port="9000", weights="int4", kv_cache_size="2GiB", log_level="INFO"
    )
    assert settings.port == 9001, "a flag wins"
    assert (settings.weights, settings.kv_cache_size, settings.log_level) == ("int4", 2 << 30, "info")
    assert _read(monkeypatch, device="GPU.0, GPU.1,CPU").device == ("GPU.0", "GPU.1", "CPU")
    assert _read(monkeypatch, "--image-device=GPU").image_device == "GPU"
    hosts = ("a.example", "http://B.example:81", "[::1]:9000", "store_1")
    assert _read(monkeypatch, image_hosts=", ".join(hosts)).image_hosts == hosts
    assert _read(monkeypatch, "--max-num-seqs=7").max_num_seqs == 7
    assert _read(monkeypatch, image_cache_size="0").image_cache_size == 0, "turned off"
    assert _read(monkeypatch, inference_precision="").inference_precision is None, "empty means unset"


def test_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}C\n\n{KEY}D\n")
    settings = _read(monkeypatch, api_keys=f"{KEY}A, {KEY}B,", api_keys_file=str(file))
    assert [key.get_secret_value()[-1] for key in settings.api_keys] == list("ABCD")
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        ([], {"port": "http"}, "MINICPMV_PORT"),
        ([], {"port": "0"}, "MINICPMV_PORT"),
        ([], {"weights": "int2"}, "MINICPMV_WEIGHTS"),
        ([], {"kv_cache_size": "much"}, "MINICPMV_KV_CACHE_SIZE"),
        ([], {"image_cache_size": "-1"}, "MINICPMV_IMAGE_CACHE_SIZE"),
        ([], {"num_speculative_tokens": "-1"}, "MINICPMV_NUM_SPECULATIVE_TOKENS"),
        ([], {"kv_cache_precision": "u4"}, "MINICPMV_KV_CACHE_PRECISION"),
        ([], {"api_keys": "short"}, "MINICPMV_API_KEYS"),
        ([], {"api_keys_file": "/nowhere/at/all"}, "MINICPMV_API_KEYS_FILE"),
        ([], {"ping_interval": "nan"}, "MINICPMV_PING_INTERVAL"),
        ([], {"device": "NPU"}, "MINICPMV_DEVICE: an NPU runs graphs of fixed shapes only, and prompts"),
        ([], {"device": "CPU,NPU.0"}, "set CPU or GPU"),
        ([], {"device": "HETERO:GPU,CPU"}, "MINICPMV_DEVICE"),
        ([], {"device": "cpu"}, "MINICPMV_DEVICE"),
        ([], {"device": ","}, "MINICPMV_DEVICE"),
        (
            [],
            {"image_device": "NPU"},
            "MINICPMV_IMAGE_DEVICE: an NPU runs graphs of fixed shapes only, and slices",
        ),
        ([], {"image_device": "CPU,GPU"}, "MINICPMV_IMAGE_DEVICE"),
        (["--device", "NPU"], {}, "--device"),
        ([], {"runner": "fast"}, "MINICPMV_RUNNER"),
        ([], {"route_prefix": "openai"}, "MINICPMV_ROUTE_PREFIX"),
        ([], {"route_prefix": "/openai/"}, "MINICPMV_ROUTE_PREFIX"),
        ([], {"root_path": "/"}, "MINICPMV_ROOT_PATH"),
        ([], {"root_path": "/a/../b"}, "MINICPMV_ROOT_PATH"),
        ([], {"image_hosts": "*.example.com"}, "MINICPMV_IMAGE_HOSTS"),
        ([], {"image_hosts": "a.example,b.example/images"}, "MINICPMV_IMAGE_HOSTS"),
        ([], {"image_hosts": "ftp://a.example"}, "MINICPMV_IMAGE_HOSTS"),
        ([], {"image_hosts": "user@a.example"}, "MINICPMV_IMAGE_HOSTS"),
        ([], {"image_hosts": "a.example."}, "MINICPMV_IMAGE_HOSTS"),
        ([], {"image_hosts_may_be_private": "perhaps"}, "MINICPMV_IMAGE_HOSTS_MAY_BE_PRIVATE"),
        ([], {"modell_dir": "x"}, "MINICPMV_MODELL_DIR"),
        (["--port", "x"], {}, "--port"),
        (["--max-queue", "-1"], {}, "--max-queue"),
        (["--surprise"], {}, "--surprise"),
        (["--port"], {}, "--port"),
        (["--por", "9000"], {}, "--por"),
        (["stray"], {}, "stray"),
        (["--api-keys", KEY], {}, "--api-keys"),
    ],
)
def test_mistakes_are_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], variables: dict[str, str], named: str
) -> None:
    with pytest.raises(StartupError) as caught:
        _read(monkeypatch, *arguments, **variables)
    assert named in caught.value.message
    assert "\n" not in caught.value.message
    assert "Value error" not in caught.value.message
    assert KEY not in caught.value.message


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert f"{PREFIX}{name.upper()}" in text
        assert field.description
        assert field.description.split()[0] in text


@pytest.mark.parametrize(
    ("variables", "code", "named"),
    [
        ({"MINICPMV_PORT": "x"}, 2, "MINICPMV_PORT"),
        ({"MINICPMV_SURPRISE": "x"}, 2, "MINICPMV_SURPRISE"),
        ({"MINICPMV_MODEL_DIR": "/nowhere"}, 1, "MINICPMV_MODEL_DIR"),
    ],
)
def test_the_process_says_one_line_and_ends(variables: dict[str, str], code: int, named: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
