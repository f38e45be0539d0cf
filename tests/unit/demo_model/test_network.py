"""What is trained is what convert exports: the same numbers from the same weights."""

import numpy as np
import pytest
import torch

from convert import reference
from convert.checkpoint import Checkpoint
from demo_model.batches import slice_batch
from demo_model.network import Network
from demo_model.vision_labels import SliceLabels
from service.vision.preprocess import normalize


@pytest.fixture(scope="module")
def slices() -> list[np.ndarray]:
    """Slices of several shapes: square, wide, tall; as the eye sees them in one padded batch."""
    rng = np.random.default_rng(0)
    shapes = [(112, 112), (84, 140), (182, 70), (112, 112)]
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


def test_the_eye_matches_the_reference(
    untrained: tuple[Network, Checkpoint], slices: list[np.ndarray], no_labels: SliceLabels
) -> None:
    network, checkpoint = untrained
    batch = slice_batch([(pixels, no_labels) for pixels in slices], patch=14)
    with torch.no_grad():
        _, embeddings = network.see(batch.normalized(), batch.grids)
    image = checkpoint.config.model_config().image
    expected = reference.encode_images(checkpoint, [normalize([pixels], image) for pixels in slices])
    np.testing.assert_allclose(embeddings.numpy(), np.concatenate(expected), atol=2e-4)


def test_the_language_model_matches_the_reference(untrained: tuple[Network, Checkpoint]) -> None:
    network, checkpoint = untrained
    token_ids = np.random.default_rng(1).integers(0, 700, (1, 90))
    with torch.no_grad():
        embedded = network.llm.embed(torch.from_numpy(token_ids))
        logits, _ = network.llm(embedded, torch.ones(1, 90, dtype=torch.bool))
    expected = reference.logits(checkpoint, [reference.embed_text(checkpoint, token_ids)])[0]
    np.testing.assert_allclose(logits.numpy(), expected, atol=2e-4)
