"""The text table's graph: rows times scale_emb."""

from pathlib import Path

import numpy as np

from convert import reference
from convert.checkpoint import Checkpoint
from convert.variant_run import TextEmbeddingsRun


def test_rows_are_scaled(exported: Path, tiny: Checkpoint) -> None:
    token_ids = np.array([[0, 1, 5, 1023], [101, 7, 7, 512]])
    rows = TextEmbeddingsRun(exported / "text_embeddings_fp16.xml")(token_ids)
    table = tiny.tensor("llm.model.embed_tokens.weight").float().numpy()
    np.testing.assert_allclose(rows, 12 * table[token_ids], rtol=0, atol=1e-6)
    np.testing.assert_allclose(reference.embed_text(tiny, token_ids), rows, rtol=0, atol=1e-6)


def test_int8_rows_are_near(exported: Path, tiny: Checkpoint) -> None:
    token_ids = np.arange(1024)[None]
    rows = TextEmbeddingsRun(exported / "text_embeddings_int8.xml")(token_ids)
    error = np.abs(rows - reference.embed_text(tiny, token_ids))
    assert 0 < error.max() < 0.02
