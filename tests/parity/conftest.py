"""The goldens' checkpoint as IRs, exported by our own convert."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from service.engine.language_model import DeviceConfig, LanguageModel
from service.engine.token_events import ImageSpan

Arrays = dict[str, NDArray[Any]]

EXACT = DeviceConfig(kv_cache_precision="f32", inference_precision="f32")


@pytest.fixture(scope="session")
def golden_irs(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with language_model.xml and text_embeddings.xml in f32."""
    torch = pytest.importorskip("torch", reason="exporting the goldens' checkpoint needs torch")
    from convert.checkpoint import Checkpoint
    from convert.steps import build_graph
    from convert.weight_cast import WeightCast

    directory = tmp_path_factory.mktemp("golden_irs")
    checkpoint = Checkpoint(goldens)
    for part in ("language_model", "text_embeddings"):
        graph, module = build_graph(checkpoint, part, WeightCast(torch.float32))
        ov.save_model(graph, directory / f"{part}.xml", compress_to_fp16=False)
        del graph, module  # the module owns the graph's weights
    return directory


@pytest.fixture(scope="session")
def load_model(golden_irs: Path) -> Callable[[DeviceConfig], LanguageModel]:
    """The goldens' language model, compiled once for each configuration."""
    loaded: dict[str, LanguageModel] = {}

    def load(config: DeviceConfig) -> LanguageModel:
        files = golden_irs / "language_model.xml", golden_irs / "text_embeddings.xml"
        return loaded.setdefault(str(config), LanguageModel(*files, config))

    return load


@pytest.fixture(scope="session")
def exact_model(load_model: Callable[[DeviceConfig], LanguageModel]) -> LanguageModel:
    """Compiled for f32 arithmetic and an f32 cache."""
    return load_model(EXACT)


@pytest.fixture(scope="session")
def llm(goldens: Path) -> Arrays:
    """llm.npz"""
    return load_arrays(goldens / "llm.npz")


@pytest.fixture(scope="session")
def chat(goldens: Path) -> Arrays:
    """chat.npz"""
    return load_arrays(goldens / "chat.npz")


@pytest.fixture(scope="session")
def generate(goldens: Path) -> Arrays:
    """generate.npz"""
    return load_arrays(goldens / "generate.npz")


@pytest.fixture(scope="session")
def generate_runs(goldens: Path) -> list[dict[str, Any]]:
    """The runs of generate.json."""
    runs: list[dict[str, Any]] = json.loads((goldens / "generate.json").read_text())["runs"]
    return runs


def load_arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def chat_prompt(chat: Arrays, name: str) -> tuple[NDArray[np.int64], tuple[ImageSpan, ...]]:
    """Ids and image spans of a case of chat.npz."""
    token_ids = chat[f"{name}_input_ids"].astype(np.int64)
    bounds = chat[f"{name}_image_bound"].tolist()
    spans = []
    for index, (start, end) in enumerate(bounds):
        embeddings = chat[f"{name}_vision"][index]
        assert end - start == len(embeddings)
        spans.append(ImageSpan(start, embeddings, hashlib.sha256(embeddings.tobytes()).digest()))
    return token_ids, tuple(spans)
