"""Owns the language model's graph: Granite's layers, a stateful KV cache, and the names of its ports.

Knows no file, no weight compression and no image.

The graph: `inputs_embeds` f32 [batch, tokens, hidden], `attention_mask` i64 [batch, past + tokens] (1: real),
`position_ids` i64 [batch, tokens] and `beam_idx` i32 [batch] give `logits` f32 [batch, tokens, vocab]. Its
tail is RMSNorm -> MatMul with the lm_head weight (the last MatMul before the output) -> Divide by hidden_size
/ dim_model_base -> Result, so a Gather of sampled rows fits on that MatMul's first input.
"""

import openvino as ov
import torch
from openvino import opset13 as ops
from torch import nn

from convert.checkpoint import Checkpoint
from convert.checkpoint_config import CheckpointConfig
from convert.tracing import load, on_meta_device, trace
from convert.upstream import Cache, GraniteConfig, GraniteForCausalLM
from convert.weight_cast import WeightCast, to_f32

_EXAMPLE_PAST = 3
_EXAMPLE_TOKENS = 2
_EXAMPLE_BATCH = 2


class GivenCache(Cache):  # type: ignore[misc]  # transformers is not read by mypy
    """Keys and values handed in as tensors; update() is one concatenation, which traces cleanly."""

    def __init__(self, past: tuple[torch.Tensor, ...]) -> None:
        """`past`: key and value of each layer in turn, each f32 [batch, kv_heads, past_len, head_dim]."""
        super().__init__(layers=[])
        self.present = list(past)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append this step's keys and values to the layer's and return both, whole."""
        for index, states in ((2 * layer_idx, key_states), (2 * layer_idx + 1, value_states)):
            self.present[index] = torch.cat([self.present[index], states], dim=2)
        return self.present[2 * layer_idx], self.present[2 * layer_idx + 1]


class LanguageModel(nn.Module):
    """GraniteForCausalLM with MiniCPM's scalings, from embeddings to logits."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.granite = GraniteForCausalLM(granite_config(config))
        for part in (self.granite, self.granite.model):
            part.loss_type = "ForCausalLM"  # unused; unset, transformers logs a warning while tracing
        # The text table has its own graph; a whole table here would cost memory for nothing.
        self.granite.model.embed_tokens = nn.Identity()

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """(logits f32 [batch, tokens, vocab], present keys and values like `past`)."""
        cache = GivenCache(past)
        output = self.granite(
            inputs_embeds=inputs_embeds,
            attention_mask=causal_mask(attention_mask, inputs_embeds.shape[1]),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits, *cache.present


def causal_mask(attention_mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """i64 [batch, total] -> additive f32 [batch, 1, tokens, total]: 0 where attended, else f32's lowest.

    The lowest finite value, not -inf: rows of left padding see nothing at all and must not become NaN.
    """
    total = attention_mask.shape[1]
    columns = torch.arange(total)
    rows = torch.arange(total - tokens, total)
    allowed = (columns[None, :] <= rows[:, None])[None, None] & (attention_mask != 0)[:, None, None, :]
    lowest = torch.finfo(torch.float32).min
    return torch.where(allowed, torch.tensor(0.0), torch.tensor(lowest))


def granite_config(config: CheckpointConfig) -> GraniteConfig:
    """MiniCPM's scalings in Granite's names.

    embedding_multiplier stays 1: Granite multiplies inputs_embeds too, but only text rows are scaled, which
    text_embeddings does.
    """
    return GraniteConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=False,
        pad_token_id=None,
        embedding_multiplier=1.0,
        residual_multiplier=config.residual_multiplier,
        attention_multiplier=config.head_dim**-0.5,
        logits_scaling=config.logits_scaling,
        attn_implementation="sdpa",
    )


def build(checkpoint: Checkpoint, cast: WeightCast) -> LanguageModel:
    """The module; the checkpoint's matrices as `cast` makes them, norms and rotary frequencies f32."""
    with on_meta_device():
        model = LanguageModel(checkpoint.config)
    tensors = {
        f"granite.{name}": (to_f32 if "norm" in name else cast)(f"llm.{name}", tensor)
        for name, tensor in checkpoint.tensors("llm.")
        if name != "model.embed_tokens.weight"
    }
    load(model, tensors)
    initialise_rotary(model.granite)
    return model.eval()


def initialise_rotary(granite: GraniteForCausalLM) -> None:
    """Give a model built on the meta device its rotary frequencies, which no checkpoint holds."""
    rotary = granite.model.rotary_emb
    frequencies, _ = rotary.compute_default_rope_parameters(rotary.config)
    rotary.inv_freq = frequencies
    rotary.original_inv_freq = frequencies.clone()


def to_openvino(model: LanguageModel, config: CheckpointConfig) -> ov.Model:
    """The stateful graph; shares memory with `model`, which must outlive it."""
    graph = trace(model, _example(config))
    _name_ports(graph, config)
    _reorder_cache(graph)
    _make_stateful(graph)
    _initialise_states(graph)
    graph.validate_nodes_and_infer_types()
    return graph


def _example(config: CheckpointConfig) -> tuple[torch.Tensor, ...]:
    total = _EXAMPLE_PAST + _EXAMPLE_TOKENS
    past = torch.zeros(_EXAMPLE_BATCH, config.num_key_value_heads, _EXAMPLE_PAST, config.head_dim)
    return (
        torch.zeros(_EXAMPLE_BATCH, _EXAMPLE_TOKENS, config.hidden_size),
        torch.ones(_EXAMPLE_BATCH, total, dtype=torch.int64),
        torch.arange(_EXAMPLE_PAST, total).expand(_EXAMPLE_BATCH, -1),
        *(past.clone() for _ in range(2 * config.num_hidden_layers)),
    )


def _name_ports(graph: ov.Model, config: CheckpointConfig) -> None:
    caches = [f"{layer}.{kind}" for layer in range(config.num_hidden_layers) for kind in ("key", "value")]
    cache_shape = ov.PartialShape([-1, config.num_key_value_heads, -1, config.head_dim])
    inputs = {
        "inputs_embeds": ov.PartialShape([-1, -1, config.hidden_size]),
        "attention_mask": ov.PartialShape([-1, -1]),
        "position_ids": ov.PartialShape([-1, -1]),
        **{f"past_key_values.{name}": cache_shape for name in caches},
    }
    for port, (name, shape) in zip(graph.inputs, inputs.items(), strict=True):
        port.get_tensor().set_names({name})
        port.node.set_friendly_name(name)
        port.node.set_partial_shape(shape)
    for port, name in zip(graph.outputs, ["logits", *(f"present.{name}" for name in caches)], strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()


def _reorder_cache(graph: ov.Model) -> None:
    """Put Gather(past, beam_idx) behind every cache input, so that a beam can follow another one's past."""
    beam_idx = ops.parameter(ov.PartialShape([-1]), dtype=ov.Type.i32, name="beam_idx")
    beam_idx.output(0).get_tensor().set_names({"beam_idx"})
    for port in graph.inputs:
        if not port.get_any_name().startswith("past_key_values."):
            continue
        consumers = port.get_target_inputs()
        reordered = ops.gather(port.node, beam_idx, ops.constant(0, dtype=ov.Type.i64))
        for consumer in consumers:
            consumer.replace_source_output(reordered.output(0))
    graph.add_parameters([beam_idx])


def _make_stateful(graph: ov.Model) -> None:
    from openvino._offline_transformations import apply_make_stateful_transformation

    pairs = {
        name: name.replace("past_key_values.", "present.")
        for name in (port.get_any_name() for port in graph.inputs)
        if name.startswith("past_key_values.")
    }
    apply_make_stateful_transformation(graph, pairs)


def _initialise_states(graph: ov.Model) -> None:
    """A reset state is [batch, kv_heads, 0, head_dim], with the batch of the inputs at hand."""
    batch = ops.gather(
        ops.shape_of(graph.input("inputs_embeds"), output_type="i64"),
        ops.constant([0], dtype=ov.Type.i64),
        ops.constant(0, dtype=ov.Type.i64),
    )
    for node in graph.get_ops():
        if node.get_type_name() != "ReadValue":
            continue
        heads, head_dim = (node.get_output_partial_shape(0)[axis].get_length() for axis in (1, 3))
        sizes = [ops.constant([size], dtype=ov.Type.i64) for size in (heads, 0, head_dim)]
        empty = ops.broadcast(ops.constant(0.0, dtype=ov.Type.f32), ops.concat([batch, *sizes], axis=0))
        node.set_arguments([empty.output(0)])
    graph.validate_nodes_and_infer_types()
