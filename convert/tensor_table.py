"""Owns the table of tensors that follows from a config: published names and shapes; reads no file."""

from convert.checkpoint_config import CheckpointConfig, VisionConfig


def expected_shapes(config: CheckpointConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor a checkpoint of this config holds, in the published names."""
    return {
        **_language_shapes(config),
        **_vision_shapes(config.vision),
        **_resampler_shapes(config),
    }


def _language_shapes(config: CheckpointConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "llm.model.embed_tokens.weight": (config.vocab_size, hidden),
        "llm.model.norm.weight": (hidden,),
        "llm.lm_head.weight": (config.vocab_size, hidden),
    }
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    for number in range(config.num_hidden_layers):
        shapes |= {f"llm.model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def _vision_shapes(vision: VisionConfig) -> dict[str, tuple[int, ...]]:
    width, inner = vision.hidden_size, vision.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "vpm.pos_embed": (1, vision.table_side**2, width),
        "vpm.patch_embed.proj.weight": (width, 3, vision.patch_size, vision.patch_size),
        "vpm.patch_embed.proj.bias": (width,),
        "vpm.norm.weight": (width,),
        "vpm.norm.bias": (width,),
    }
    block: dict[str, tuple[int, ...]] = {
        "norm1": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "norm2": (width,),
        "mlp.fc1": (inner, width),
        "mlp.fc2": (width, inner),
    }
    for number in range(vision.num_hidden_layers):
        for name, shape in block.items():
            shapes[f"vpm.blocks.{number}.{name}.weight"] = shape
            shapes[f"vpm.blocks.{number}.{name}.bias"] = shape[:1]
    return shapes


def _resampler_shapes(config: CheckpointConfig) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "resampler.pos_embed": (config.query_num, hidden),
        "resampler.query": (config.query_num, hidden),
        "resampler.proj": (hidden, hidden),
        "resampler.kv_proj.weight": (hidden, config.vision.hidden_size),
        "resampler.attn.in_proj_weight": (3 * hidden, hidden),
        "resampler.attn.in_proj_bias": (3 * hidden,),
        "resampler.attn.out_proj.weight": (hidden, hidden),
        "resampler.attn.out_proj.bias": (hidden,),
    }
    for name in ("ln_q", "ln_kv", "ln_post"):
        shapes[f"resampler.{name}.weight"] = (hidden,)
        shapes[f"resampler.{name}.bias"] = (hidden,)
    return shapes
