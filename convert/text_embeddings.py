"""Owns the text embedding graph; knows nothing of images.

`input_ids` i64 [batch, tokens] -> `inputs_embeds` f32 [batch, tokens, hidden], multiplied by scale_emb, as
MiniCPM scales text rows and only those.
"""

import openvino as ov
import torch
from torch import nn

from convert.checkpoint import Checkpoint
from convert.checkpoint_config import CheckpointConfig
from convert.tracing import load, on_meta_device, trace
from convert.weight_cast import WeightCast

TABLE = "llm.model.embed_tokens.weight"  # its name in a checkpoint


class TextEmbeddings(nn.Module):
    """The embedding table, times scale_emb."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.scale_emb = config.scale_emb

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """i64 [batch, tokens] -> f32 [batch, tokens, hidden]."""
        rows: torch.Tensor = self.embed_tokens(input_ids)
        return rows * self.scale_emb


def build(checkpoint: Checkpoint, cast: WeightCast) -> TextEmbeddings:
    """The module with the checkpoint's table as `cast` makes it."""
    with on_meta_device():
        model = TextEmbeddings(checkpoint.config)
    load(model, {"embed_tokens.weight": cast(TABLE, checkpoint.tensor(TABLE))})
    return model.eval()


def to_openvino(model: TextEmbeddings) -> ov.Model:
    """The graph; shares memory with `model`, which must outlive it."""
    graph = trace(model, (torch.zeros(2, 3, dtype=torch.int64),))
    graph.inputs[0].get_tensor().set_names({"input_ids"})
    graph.inputs[0].node.set_friendly_name("input_ids")
    graph.inputs[0].node.set_partial_shape(ov.PartialShape([-1, -1]))
    graph.outputs[0].get_tensor().set_names({"inputs_embeds"})
    graph.validate_nodes_and_infer_types()
    return graph
