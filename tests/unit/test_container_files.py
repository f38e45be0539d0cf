"""Dockerfile and docker-compose.yml name only what exists; building them for real is a release step."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings
from tests.conftest import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = compose["services"]
    return found


def test_every_variable_is_a_setting(services: dict[str, Any]) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+", DOCKERFILE)) | {
        name for service in services.values() for name in service["environment"] if name.startswith(PREFIX)
    }
    assert len(named) > 5
    assert named <= {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}


def test_build_targets_exist(services: dict[str, Any]) -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    targets = {service["build"]["target"] for service in services.values() if "build" in service}
    assert targets == {"serve", "convert"}
    assert targets <= stages
    assert DOCKERFILE.rindex(" AS serve") > DOCKERFILE.rindex(" AS convert"), "serve is the default target"


def test_the_serving_stages_install_no_torch() -> None:
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE):
        installs_torch = "torch==" in stage or "[convert]" in stage
        assert installs_torch == stage.splitlines()[0].endswith(" AS build-convert")


def test_containers_run_unprivileged(services: dict[str, Any]) -> None:
    assert DOCKERFILE.count("USER minicpmv") == 2
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert services["service"]["read_only"]


def test_what_is_copied_or_mounted_exists(services: dict[str, Any]) -> None:
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    sources = {Path(name) for names in copied for name in names if not name.startswith(("--", "/"))}
    mounts = [str(volume) for service in services.values() for volume in service["volumes"]]
    sources |= {Path(mount.split(":")[0]) for mount in mounts if mount.startswith(".")}
    assert sources
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []
