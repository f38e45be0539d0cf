"""openvino.genai's continuous batching on the same weights: gives it our IR in its form, drives its steps."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai
from numpy.typing import NDArray
from openvino_tokenizers import convert_tokenizer
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from benchmarks.model import BenchModel
from benchmarks.service_engine import KV_CACHE_PRECISION, MAX_BATCHED_TOKENS, device_config
from benchmarks.streams import StreamTimes

_CACHE_GB = 1


class GenaiPeer:
    """A ContinuousBatchingPipeline with the batch sizes and properties the service's engine has."""

    def __init__(self, model: BenchModel, models: Path, max_num_seqs: int, *, as_exported: bool) -> None:
        """Writes the model in genai's form into `models`, once.

        `as_exported`: with the scaling that write_model would leave out, and genai's own default of how
        activations are rounded; else without it, and rounded as the service does.
        """
        directory = models / f"genai_{model.label}{'_scaled' if as_exported else ''}"
        if not (directory / "openvino_tokenizer.xml").is_file():  # written last
            write_model(model, directory, keep_scaling=as_exported)
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = _CACHE_GB
        scheduler.max_num_seqs = max_num_seqs
        scheduler.max_num_batched_tokens = MAX_BATCHED_TOKENS
        scheduler.enable_prefix_caching = True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(directory), scheduler, "CPU", _properties(model, as_exported=as_exported), {}
        )

    def run(self, prompts: Sequence[NDArray[np.int64]], num_tokens: int) -> list[StreamTimes]:
        """All prompts at once, greedy, `num_tokens` each."""
        config = openvino_genai.GenerationConfig(max_new_tokens=num_tokens, ignore_eos=True, do_sample=False)
        start_s = time.perf_counter()
        handles = [
            self._pipeline.add_request(number, ov.Tensor(prompt[None]), config)
            for number, prompt in enumerate(prompts)
        ]
        times: list[list[float]] = [[] for _ in prompts]
        token_ids: list[list[int]] = [[] for _ in prompts]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now_s = time.perf_counter()
            for handle, its_times, its_ids in zip(handles, times, token_ids, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        its_ids += output.generated_ids
                        its_times += [now_s] * len(output.generated_ids)
        if any(len(ids) != num_tokens for ids in token_ids):
            raise RuntimeError("genai gave another number of tokens than asked for")
        return [StreamTimes(start_s, tuple(t), tuple(ids)) for t, ids in zip(times, token_ids, strict=True)]


def write_model(model: BenchModel, directory: Path, *, keep_scaling: bool) -> None:
    """openvino_model.xml from token ids to logits, and a tokenizer nobody asks anything of.

    genai computes logits of sampled tokens only if it finds the lm_head's MatMul at the very end. Our graph
    divides the logits behind it, so that step is left out unless `keep_scaling`: a greedy answer is the same,
    and genai is not slowed down by a place in the graph.
    """
    core = ov.Core()
    graph = core.read_model(model.language_model)
    _take_token_ids(graph, core.read_model(model.text_embeddings))
    if not keep_scaling:
        _drop_scaling(graph)
    graph.validate_nodes_and_infer_types()
    directory.mkdir(parents=True, exist_ok=True)
    ov.save_model(graph, directory / "openvino_model.xml", compress_to_fp16=False)
    tokenizer, detokenizer = convert_tokenizer(
        _numbers_as_words(model.manifest.model.vocab_size), with_detokenizer=True
    )
    ov.save_model(detokenizer, directory / "openvino_detokenizer.xml")
    ov.save_model(tokenizer, directory / "openvino_tokenizer.xml")


def _numbers_as_words(vocab_size: int) -> PreTrainedTokenizerFast:
    """genai asks for a tokenizer whatever it is given; prompts and answers here are ids."""
    tokenizer = Tokenizer(BPE(vocab={f"<{number}>": number for number in range(vocab_size)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<0>", bos_token="<1>", eos_token="<2>", pad_token="<0>"
    )


def _take_token_ids(graph: ov.Model, table: ov.Model) -> None:
    """Put the text table in front of the language model: `input_ids` instead of `inputs_embeds`."""
    rows = table.output(0).get_node().input_value(0)
    embeds = graph.input("inputs_embeds").get_node()
    for consumer in embeds.output(0).get_target_inputs():
        consumer.replace_source_output(rows)
    graph.add_parameters(table.get_parameters())
    graph.remove_parameter(embeds)


def _drop_scaling(graph: ov.Model) -> None:
    result = graph.output("logits").get_node()
    last = result.input_value(0).get_node()
    if last.get_type_name() == "MatMul":
        return
    logits = last.input_value(0)
    if (last.get_type_name(), logits.get_node().get_type_name()) != ("Divide", "MatMul"):
        raise RuntimeError("the language model's tail is not MatMul, Divide")
    logits.get_tensor().add_names({"logits"})
    result.input(0).replace_source_output(logits)


def _properties(model: BenchModel, *, as_exported: bool) -> dict[str, Any]:
    """What the service compiles its own with; `as_exported` leaves the rounding of activations out."""
    config = device_config(model)
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "KV_CACHE_PRECISION": KV_CACHE_PRECISION}
    if config.inference_precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = config.inference_precision
    if config.num_threads is not None:
        properties["INFERENCE_NUM_THREADS"] = config.num_threads
    return properties if as_exported else properties | dict(config.extra)
