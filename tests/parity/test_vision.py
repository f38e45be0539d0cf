"""Vision tower and resampler against the original: our torch module and our graph, every image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.artifacts import ImageConfig
from service.vision.preprocess import cut_slices, normalize
from service.vision.slicing import plan_slices
from tests.parity.conftest import Arrays, load_arrays

torch = pytest.importorskip("torch", reason="convert needs torch")

from convert import image_encoder  # noqa: E402
from convert.checkpoint import Checkpoint  # noqa: E402
from convert.resampler import position_table  # noqa: E402
from convert.variant_run import ImageEncoderRun  # noqa: E402
from convert.weight_cast import WeightCast  # noqa: E402

# Embeddings reach about 4 and everything is f32: a few units in the last place.
TORCH_TOLERANCE = 1e-5
GRAPH_TOLERANCE = 5e-6
CASES = range(12)
CHATS = ("c0_noslice", "c1_slice2", "c2_slice_tall", "c4_multiturn")

Encode = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def checkpoint(goldens: Path) -> Checkpoint:
    return Checkpoint(goldens)


@pytest.fixture(scope="module")
def image_config(checkpoint: Checkpoint) -> ImageConfig:
    return checkpoint.config.model_config().image


@pytest.fixture(scope="module")
def module(checkpoint: Checkpoint) -> image_encoder.ImageEncoder:
    return image_encoder.build(checkpoint, WeightCast(torch.float32))


@pytest.fixture(scope="module")
def graph_path(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A module of its own: tracing leaves its marks on the one it is given.
    traced = image_encoder.build(checkpoint, WeightCast(torch.float32))
    path = tmp_path_factory.mktemp("vision") / "image_encoder.xml"
    ov.save_model(image_encoder.to_openvino(traced), path, compress_to_fp16=False)
    return path


@pytest.fixture(scope="module")
def encode_by(module: image_encoder.ImageEncoder, graph_path: Path) -> dict[str, Encode]:
    def by_torch(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            result: NDArray[np.float32] = module(torch.from_numpy(pixels)).numpy()
        return result

    return {"torch": by_torch, "graph": ImageEncoderRun(graph_path)}


@pytest.fixture(scope="module")
def vision(goldens: Path) -> Arrays:
    return load_arrays(goldens / "vision.npz")


@pytest.fixture(scope="module")
def cases(goldens: Path) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = json.loads((goldens / "vision.json").read_text())
    return images


def _pixels(goldens: Path, name: str, image_config: ImageConfig) -> NDArray[np.float32]:
    with Image.open(goldens / "images" / name) as image:
        return normalize((np.asarray(image.convert("RGB")),), image_config)


@pytest.mark.parametrize(("by", "tolerance"), [("torch", TORCH_TOLERANCE), ("graph", GRAPH_TOLERANCE)])
@pytest.mark.parametrize("n", CASES)
def test_image_embeddings(
    n: int,
    by: str,
    tolerance: float,
    goldens: Path,
    image_config: ImageConfig,
    encode_by: dict[str, Encode],
    vision: Arrays,
    cases: list[dict[str, Any]],
) -> None:
    pixels = _pixels(goldens, cases[n]["image"], image_config)
    assert pixels.shape[2:] == (cases[n]["H"], cases[n]["W"])
    np.testing.assert_allclose(pixels[0, :, 0, 0], cases[n]["pixel_first"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(pixels.sum(dtype=np.float64), cases[n]["pixel_sum"], rtol=1e-6)
    embeddings = encode_by[by](pixels)
    assert embeddings.shape == (1, 64, 256)
    np.testing.assert_allclose(embeddings[0], vision[f"resampler_{n:02}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("n", CASES)
def test_tower_features(
    n: int,
    goldens: Path,
    image_config: ImageConfig,
    module: image_encoder.ImageEncoder,
    vision: Arrays,
    cases: list[dict[str, Any]],
) -> None:
    pixels = torch.from_numpy(_pixels(goldens, cases[n]["image"], image_config))
    with torch.no_grad():
        features = module.vpm.forward_features(pixels)[0].numpy()  # type: ignore[operator]
    assert len(features) == cases[n]["tokens"]
    np.testing.assert_allclose(
        features[vision[f"feat_row_index_{n:02}"]],
        vision[f"feat_rows_{n:02}"],
        rtol=0,
        atol=TORCH_TOLERANCE,
    )
    if f"feat_full_{n:02}" in vision:
        np.testing.assert_allclose(features, vision[f"feat_full_{n:02}"], rtol=0, atol=TORCH_TOLERANCE)


@pytest.mark.parametrize("n", CASES)
def test_position_tables(
    n: int, module: image_encoder.ImageEncoder, vision: Arrays, cases: list[dict[str, Any]]
) -> None:
    rows, columns = cases[n]["tgt_size"]
    index = vision[f"feat_row_index_{n:02}"]
    keys = position_table(rows, columns, 256).numpy()
    np.testing.assert_allclose(keys[index], vision[f"key_pos_rows_{n:02}"], rtol=0, atol=1e-6)
    with torch.no_grad():
        nothing = torch.zeros(1, rows, columns, 144)
        tower = module.vpm._pos_embed(nothing)[0].numpy()  # type: ignore[operator]
    np.testing.assert_allclose(tower[index], vision[f"vit_pos_rows_{n:02}"], rtol=0, atol=1e-6)


def test_slices_of_one_size_as_a_batch(
    goldens: Path,
    image_config: ImageConfig,
    encode_by: dict[str, Encode],
    vision: Arrays,
    cases: list[dict[str, Any]],
) -> None:
    first = _pixels(goldens, cases[11]["image"], image_config)
    batch = np.concatenate([first[:, :, ::-1], first, first[:, :, :, ::-1]])
    for by, tolerance in (("torch", TORCH_TOLERANCE), ("graph", GRAPH_TOLERANCE)):
        embeddings = encode_by[by](np.ascontiguousarray(batch))
        np.testing.assert_allclose(embeddings[1], vision["resampler_11"], rtol=0, atol=tolerance)
        assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01


@pytest.mark.parametrize("by", ["torch", "graph"])
@pytest.mark.parametrize("name", CHATS)
def test_slices_of_a_chat(
    name: str, by: str, goldens: Path, image_config: ImageConfig, encode_by: dict[str, Encode], chat: Arrays
) -> None:
    (path,) = (goldens / "images").glob(f"{name}_*.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    slices = cut_slices(pixels, plan_slices(pixels.shape[1], pixels.shape[0], image_config))
    embeddings = np.concatenate([encode_by[by](normalize((part,), image_config)) for part in slices])
    np.testing.assert_allclose(embeddings, chat[f"{name}_vision"], rtol=0, atol=GRAPH_TOLERANCE)
