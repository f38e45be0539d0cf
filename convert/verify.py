"""Owns the comparison of exported graphs with torch in f32, variant by variant; knows no format of weights.

Every part is compared on the same inputs; the language model is fed with the embeddings of its own variant,
so its errors, the KL divergence and the share of equal greedy tokens are those of the whole variant.
Positions in image slots do not count: nothing is ever predicted there.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert import reference
from convert.apart import run_sized
from convert.checkpoint import Checkpoint
from convert.errors import OptionError
from convert.manifest import write_manifest
from convert.progress import Steps, silent
from convert.requests import ModelRequest, verification_pixels, verification_requests
from convert.variant_run import ImageEncoderRun, LanguageModelRun, TextEmbeddingsRun
from service.artifacts import (
    Manifest,
    ModelConfig,
    PartReport,
    VerificationReport,
    WeightFormat,
    check_files,
    read_manifest,
)
from service.mapped_pages import pages_returned
from service.prompt.tokenizer import SentencePieceTokenizer

Array = NDArray[np.float32]


def verify(directory: Path, checkpoint_directory: Path, steps: Steps | None = None) -> Manifest:
    """Measure every variant in `directory` and write the reports into its manifest, which is returned.

    Raises CheckpointError, OptionError where the checkpoint is not the exported one, ArtifactError.
    """
    steps = steps or silent()
    manifest = read_manifest(directory)
    checkpoint = Checkpoint(checkpoint_directory)
    _check_source(checkpoint, manifest, steps)
    for weights in manifest.variants:
        with steps.step(f"checking the files of {weights}"):
            check_files(directory, manifest, weights)
    size = checkpoint.num_bytes
    with tempfile.TemporaryDirectory(prefix="minicpmv-verify-") as scratch:
        expected = Path(scratch) / "expected.npz"
        with steps.step("torch in f32"):
            run_sized(size, compute_reference, checkpoint_directory, directory, expected)
        reports: dict[WeightFormat, VerificationReport] = {}
        for weights in manifest.variants:
            with steps.step(f"{weights} against torch"):
                reports[weights] = run_sized(size, measure_variant, directory, weights, expected)
    verified = _with_reports(manifest, reports)
    write_manifest(directory, verified)
    return verified


def compute_reference(checkpoint_directory: Path, directory: Path, expected: Path) -> None:
    """Write torch's outputs for all verification inputs to `expected` (.npz)."""
    checkpoint = Checkpoint(checkpoint_directory)
    manifest = read_manifest(directory)
    requests = _requests(directory, manifest)
    slices = [pixels for request in requests for pixels in request.pixels]
    images = reference.encode_images(checkpoint, [*verification_pixels(manifest.model), *slices])
    of_slices = iter(images[len(images) - len(slices) :])
    prompts = [
        request.embed(lambda ids: reference.embed_text(checkpoint, ids), lambda _: next(of_slices))
        for request in requests
    ]
    arrays = {f"image_{n}": image for n, image in enumerate(images[: len(images) - len(slices)])}
    arrays["text"] = reference.embed_text(checkpoint, _sampled_ids(manifest.model))
    for n, (request, logits) in enumerate(zip(requests, reference.logits(checkpoint, prompts), strict=True)):
        arrays[f"logits_{n}"] = logits[_predicting(request)]
    np.savez(expected, allow_pickle=False, **arrays)


def measure_variant(directory: Path, weights: WeightFormat, expected: Path) -> VerificationReport:
    """Run one variant on all verification inputs and compare with what compute_reference() wrote."""
    manifest = read_manifest(directory)
    variant = manifest.variants[weights]
    requests = _requests(directory, manifest)
    with pages_returned(directory), np.load(expected, allow_pickle=False) as arrays:
        encode_image = ImageEncoderRun(directory / variant.image_encoder)
        embed_text = TextEmbeddingsRun(directory / variant.text_embeddings)
        pixels = verification_pixels(manifest.model)
        images = _Errors()
        for n, batch in enumerate(pixels):
            images.add(encode_image(batch), arrays[f"image_{n}"])
        text = _Errors()
        text.add(embed_text(_sampled_ids(manifest.model)), arrays["text"])
        prompts = [request.embed(embed_text, encode_image) for request in requests]
        del encode_image, embed_text
        language = _compare_logits(directory / variant.language_model, requests, prompts, arrays)
    return VerificationReport(
        image_encoder=images.report(),
        text_embeddings=text.report(),
        language_model=language.errors.report(),
        kl_divergence=language.divergence / language.positions,
        identical_greedy_tokens=language.identical / language.positions,
        num_images=sum(len(batch) for batch in pixels),
        num_positions=language.positions,
    )


class _Errors:
    """Largest and mean absolute difference over several arrays."""

    def __init__(self) -> None:
        self._max = 0.0
        self._sum = 0.0
        self._count = 0

    def add(self, actual: Array, expected: Array) -> None:
        difference = np.abs(actual - expected)
        self._max = max(self._max, float(difference.max()))
        self._sum += float(difference.sum(dtype=np.float64))
        self._count += difference.size

    def report(self) -> PartReport:
        return PartReport(max_error=self._max, mean_error=self._sum / self._count)


@dataclass(slots=True)
class _Language:
    errors: _Errors
    divergence: float = 0.0  # summed over positions
    identical: int = 0
    positions: int = 0


def _compare_logits(
    path: Path, requests: tuple[ModelRequest, ...], prompts: list[Array], arrays: "np.lib.npyio.NpzFile"
) -> _Language:
    run = LanguageModelRun(path)
    total = _Language(_Errors())
    for n, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
        actual, expected = run.start(prompt)[_predicting(request)], arrays[f"logits_{n}"]
        total.errors.add(actual, expected)
        total.divergence += kl_divergence(expected, actual)
        total.identical += int((actual.argmax(-1) == expected.argmax(-1)).sum())
        total.positions += len(actual)
    return total


def kl_divergence(expected: Array, actual: Array) -> float:
    """Sum over rows of KL(softmax(expected) || softmax(actual)) in nats; logits f32 [rows, vocab]."""
    total = 0.0
    for p_logits, q_logits in zip(expected, actual, strict=True):  # row by row: a row in f64 is large enough
        p, q = _log_softmax(p_logits), _log_softmax(q_logits)
        total += float(np.sum(np.exp(p) * (p - q)))
    return max(total, 0.0)  # rounding may leave -1e-17


def _log_softmax(logits: Array) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def _predicting(request: ModelRequest) -> NDArray[np.bool_]:
    """bool [num_prompt_tokens]: whether a token's successor is predicted, which image slots never do."""
    mask = np.ones(len(request.token_ids), dtype=np.bool_)
    for slot in request.image_slots:
        mask[slot.start : slot.start + request.query_num] = False
    return mask


def _sampled_ids(model: ModelConfig) -> NDArray[np.int64]:
    """Ids over the whole vocabulary, i64 [1, at most 4096]."""
    return np.unique(np.linspace(0, model.vocab_size - 1, 4096).astype(np.int64))[None]


def _requests(directory: Path, manifest: Manifest) -> tuple[ModelRequest, ...]:
    tokenizer = SentencePieceTokenizer(directory / manifest.tokenizer, manifest.model.token_ids)
    return verification_requests(manifest.model, tokenizer)


def _check_source(checkpoint: Checkpoint, manifest: Manifest, steps: Steps) -> None:
    with steps.counted("reading the checkpoint", checkpoint.num_bytes) as on_bytes:
        digest = checkpoint.source("", None, on_bytes).digest
    if digest != manifest.source.digest:
        raise OptionError(
            f"--checkpoint is not what was exported here (that was {manifest.source.id}, digest "
            f"{manifest.source.digest[:12]}…): name that one"
        )


def _with_reports(manifest: Manifest, reports: dict[WeightFormat, VerificationReport]) -> Manifest:
    variants = {
        weights: variant.model_copy(update={"verification": reports[weights]})
        for weights, variant in manifest.variants.items()
    }
    return manifest.model_copy(update={"variants": variants})
