"""Who may import whom, read from the source: the table of docs/architecture.md, held for every module."""

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_CONTRACT = {"errors", "metrics", "artifacts"}
_GENERATION = _CONTRACT | {"protocol", "prompt", "vision", "engine"}

# Room or top-level module of service/ -> rooms and modules of service/ it may import, besides itself.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "metrics": {"errors"},
    "settings": {"errors", "artifacts"},
    "artifacts": {"errors"},
    "host_limits": set(),
    "mapped_pages": set(),
    "server": {"errors", "protocol"},
    "protocol": {"errors", "metrics"},
    "prompt": _CONTRACT,
    "vision": _CONTRACT,
    "engine": _CONTRACT,
    "remote": {"errors"},
    "generation": _GENERATION,
    "api": {"errors", "metrics", "protocol", "generation"},
    "placement": {"errors", "engine", "host_limits"},
    "device_cards": {"engine", "protocol"},
    "loaded_models": _GENERATION | {"settings", "placement", "device_cards"},
    "app": _GENERATION
    | {"api", "generation", "settings", "host_limits", "mapped_pages", "server"}
    | {"placement", "device_cards", "remote", "loaded_models"},
    "openapi": {"api", "generation"},
    "__main__": {"errors", "artifacts", "settings", "app", "server"},
}
FROM_SERVICE_INTO_CONVERT = {"vision", "prompt", "artifacts", "errors", "mapped_pages"}
OFFLINE = {
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "nncf",
    "safetensors",
    "huggingface_hub",
    "convert",
    "tests",
}


def _modules(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Absolute dotted names of everything a module imports, wherever in it the statement stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module or "")
            if node.module == "service":
                names |= {f"service.{alias.name}" for alias in node.names}
    return names


def _rooms(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("service.")}


def _room_of(path: Path) -> str:
    return path.relative_to(REPOSITORY / "service").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", _modules("service"), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_service(path: Path) -> None:
    names, room = _imports(path), _room_of(path)
    assert not {name.split(".")[0] for name in names} & OFFLINE, "serving needs nothing that converting needs"
    assert _rooms(names) <= ALLOWED[room] | {room}


@pytest.mark.parametrize("path", _modules("convert"), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_convert(path: Path) -> None:
    assert _rooms(_imports(path)) <= FROM_SERVICE_INTO_CONVERT


def test_threads_are_named_in_four_files() -> None:
    named = {
        str(path.relative_to(REPOSITORY))
        for path in _modules("service")
        if _imports(path) & {"threading", "concurrent.futures"}
    }
    assert named == {
        "service/engine/engine.py",
        "service/generation/grammar_compiler.py",
        "service/mapped_pages.py",
        "service/vision/worker.py",
    }


def test_nothing_unpickles_or_runs_remote_code() -> None:
    for path in (*_modules("service"), *_modules("convert")):
        assert not _imports(path) & {"pickle", "dill", "cloudpickle", "marshal"}, path
        assert "trust_remote_code" not in _identifiers(path), path


def _identifiers(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg}
