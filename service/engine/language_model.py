"""Loads language model and text embeddings onto a device, for paged attention; runs nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import openvino as ov
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation

from service.engine.kv_cache import KVCache, read_layout
from service.engine.model_runner import ModelRunner
from service.errors import StartupError


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """Where and how exactly the models run; names and values are OpenVINO's."""

    device: str = "CPU"
    kv_cache_precision: str = "u8"
    inference_precision: str | None = None  # None: the plug-in's default; "f32" for exact runs
    num_threads: int | None = None  # of what runs on the CPU; None: the plug-in's default
    cache_dir: Path | None = None  # where compiled models are kept between starts
    extra: Mapping[str, str] = field(default_factory=dict)  # further properties, applied last


class LanguageModel:
    """The compiled models and what their shapes say. Makes runners; holds no cache."""

    is_paged = True

    def __init__(
        self, language_model: Path, text_embeddings: Path, config: DeviceConfig | None = None
    ) -> None:
        """Read two .xml files, apply the paged-attention transformation, compile.

        Raises StartupError if the device is unknown or refuses the precision.
        """
        config = config or DeviceConfig()
        core = ov.Core()
        model = core.read_model(language_model)
        to_paged_attention(model)
        self._text_embeddings = compile_text_embeddings(core, text_embeddings, config)
        if config.device == "CPU":
            # OpenVINO 2026.4's CPU plug-in writes blobs of paged attention that it then cannot read: they
            # would cost their size on the disk at every start, for nothing.
            config = replace(config, cache_dir=None)
        self.compiled = compile_language_model(core, model, config)
        self._layout = read_layout(self.compiled)

    @property
    def block_size(self) -> int:
        """Tokens in one KV block."""
        return self._layout.block_size

    @property
    def block_bytes(self) -> int:
        """Memory of one KV block over all layers: num_blocks = budget_bytes // block_bytes."""
        return self._layout.block_bytes

    @property
    def quantises_kv_cache(self) -> bool:
        """Whether keys and values share scales with others of their block, see KVCacheLayout.is_quantised."""
        return self._layout.is_quantised

    @property
    def hidden_size(self) -> int:
        return int(self._text_embeddings.output(0).partial_shape[2].get_length())

    @property
    def vocab_size(self) -> int:
        return int(self.compiled.output(0).partial_shape[-1].get_length())

    def new_runner(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int) -> ModelRunner:
        """A runner with a KV cache of its own."""
        cache = KVCache(self._layout, num_blocks)
        return ModelRunner(self.compiled, self._text_embeddings, cache, max_num_seqs, max_num_batched_tokens)


def to_paged_attention(model: ov.Model) -> None:
    """From the stateful graph to one over paged attention, with logits of sampled tokens only; in place."""
    gather_sampled_tokens(model)
    paged_attention_transformation(model)


def gather_sampled_tokens(model: ov.Model) -> None:
    """Let only the hidden states named by a new input `sampled_tokens_indices` i64 [n] reach the lm_head.

    Expects the stateful graph, whose hidden states are [batch, tokens, hidden]; the paged-attention
    transformation turns the first axis into tokens, which is why the Gather is on axis 0.
    """
    lm_head = model.output("logits").get_node()
    while lm_head.get_type_name() != "MatMul":
        lm_head = lm_head.input_value(0).get_node()
    indices = ops.parameter(ov.PartialShape([-1]), dtype=ov.Type.i64, name="sampled_tokens_indices")
    indices.output(0).get_tensor().set_names({"sampled_tokens_indices"})
    sampled = ops.gather(lm_head.input_value(0), indices, ops.constant(0, dtype=ov.Type.i64))
    lm_head.input(0).replace_source_output(sampled.output(0))
    model.add_parameters([indices])


def compile_language_model(core: ov.Core, model: ov.Model, config: DeviceConfig) -> ov.CompiledModel:
    """Compile for `config`; raises StartupError if the device is unknown or refuses the precision."""
    return _compile(core, model, config.device, _properties(config))


def compile_text_embeddings(core: ov.Core, path: Path, config: DeviceConfig) -> ov.CompiledModel:
    """On the CPU always: a table look-up needs no accelerator, and its rows must meet the image's in host
    memory."""
    return _compile(core, core.read_model(path), "CPU", _text_properties(config))


def _properties(config: DeviceConfig) -> dict[str, str | int]:
    properties: dict[str, str | int] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "KV_CACHE_PRECISION": config.kv_cache_precision,
    }
    if config.inference_precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = config.inference_precision
    if config.num_threads is not None and config.device in ("CPU", "AUTO"):
        properties["INFERENCE_NUM_THREADS"] = config.num_threads
    return properties | _cache_property(config) | dict(config.extra)


def _text_properties(config: DeviceConfig) -> dict[str, str | int]:
    """Always f32: a look-up gains nothing from rounding its rows."""
    properties: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    if config.num_threads is not None:
        properties["INFERENCE_NUM_THREADS"] = config.num_threads
    return properties | _cache_property(config)


def _cache_property(config: DeviceConfig) -> dict[str, str]:
    return {} if config.cache_dir is None else {"CACHE_DIR": str(config.cache_dir)}


def _compile(
    core: ov.Core, model: ov.Model, device: str, properties: Mapping[str, str | int]
) -> ov.CompiledModel:
    try:
        return core.compile_model(model, device, dict(properties))
    except RuntimeError:  # OpenVINO's text names paths of the machine that built it
        listed = ", ".join(f"{name}={value}" for name, value in properties.items() if name != "CACHE_DIR")
        have = ", ".join(core.available_devices)
        raise StartupError(
            f"the model does not compile for device {device} with {listed or 'its defaults'} "
            f"(devices here: {have}): check the device and the precisions"
        ) from None
