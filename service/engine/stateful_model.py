"""Loads language model and text embeddings as they are, for the stateful runner; runs nothing itself."""

import math
from pathlib import Path

import openvino as ov

from service.engine.language_model import DeviceConfig, compile_language_model, compile_text_embeddings
from service.engine.stateful_runner import StatefulRunner

_BLOCK_SIZE = 32  # tokens; nothing is laid out in blocks here, the scheduler only counts in them
_SCALE_BYTES = 8  # an f32 scale and zero point for each quantised key or value of a head
_BITS = {"u8": 8, "f16": 16, "bf16": 16, "f32": 32}


class StatefulModel:
    """The compiled models, their cache inside. Has the face of LanguageModel and makes StatefulRunners."""

    is_paged = False
    block_size = _BLOCK_SIZE
    quantises_kv_cache = False  # of no consequence: nothing is shared

    def __init__(
        self, language_model: Path, text_embeddings: Path, config: DeviceConfig | None = None
    ) -> None:
        """Read two .xml files and compile. Raises StartupError as LanguageModel does."""
        config = config or DeviceConfig()
        core = ov.Core()
        model = core.read_model(language_model)
        self.block_bytes = _token_bytes(model, config.kv_cache_precision) * _BLOCK_SIZE
        self.compiled = compile_language_model(core, model, config)
        self._text_embeddings = compile_text_embeddings(core, text_embeddings, config)

    @property
    def hidden_size(self) -> int:
        return int(self._text_embeddings.output(0).partial_shape[2].get_length())

    @property
    def vocab_size(self) -> int:
        return int(self.compiled.output(0).partial_shape[-1].get_length())

    def new_runner(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int) -> StatefulRunner:
        """A runner with a state of its own; the sizes bound what it is asked for, it allocates as it goes."""
        return StatefulRunner(self.compiled, self._text_embeddings)


def _token_bytes(model: ov.Model, kv_cache_precision: str) -> int:
    """Memory of one token's keys and values over all layers: an estimate, the plug-in keeps them its own way.

    The states are [batch, heads, tokens, head_dim].
    """
    scales = _SCALE_BYTES if kv_cache_precision == "u8" else 0
    num_bytes = 0
    for sink in model.get_sinks():
        _, heads, _, head_dim = sink.input_value(0).partial_shape
        head_bytes = math.ceil(head_dim.get_length() * _BITS[kv_cache_precision] / 8) + scales
        num_bytes += heads.get_length() * head_bytes
    return num_bytes
