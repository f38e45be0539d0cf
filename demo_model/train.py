"""Owns training: the eye alone, all parts, more of the hard tasks; saves its state, and goes on from it.

`python -m demo_model train`
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from convert.checkpoint import SINGLE_NAME
from convert.checkpoint_config import CheckpointConfig, parse_config
from demo_model.batches import ConversationBatch, SliceBatch, conversation_batch, slice_batch
from demo_model.network import Network, initialise
from demo_model.samples import Sampler
from demo_model.settings import Settings, Stage
from demo_model.vision_heads import VisionHeads
from demo_model.vision_labels import IGNORED
from demo_model.vocabulary import demo_vocabulary
from service.artifacts import TokenIds
from service.prompt.tokenizer import SentencePieceTokenizer

_SAVE_EVERY = 100  # steps
_LOG_EVERY = 25
_POOL = 4  # batches whose conversations are sorted by length together
_EYE, _ALL, _EYE_LATER, _MORE, _EYE_LAST = 0, 1, 2, 3, 4  # first number of every sample's seed
_STAGES = ("eye", "all", "more")
_SEEDS = {"all": (_ALL, _EYE_LATER), "more": (_MORE, _EYE_LAST)}


class Batches(IterableDataset[Any]):
    """One batch a step, drawn in the loader's process."""

    def __init__(
        self, settings: Settings, config: CheckpointConfig, stage: str, first: int, last: int
    ) -> None:
        self._settings, self._config, self._stage = settings, config, stage
        self._first, self._last = first, last

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        sampler = make_sampler(self._settings, self._config)
        if self._stage == "eye":
            yield from self._eye(sampler, self._settings.eye)
        else:
            yield from self._conversations(sampler, getattr(self._settings, self._stage))

    def _eye(self, sampler: Sampler, stage: Stage) -> Iterator[SliceBatch]:
        for step in range(self._first, self._last):
            yield self._eye_batch(sampler, range(step * stage.batch, (step + 1) * stage.batch), _EYE)

    def _eye_batch(self, sampler: Sampler, numbers: range, kind: int) -> SliceBatch:
        eye = self._settings.eye
        seeds = ((kind, self._settings.seed, number) for number in numbers)
        views = [view for seed in seeds for view in sampler.eye(*seed, kinds=eye.kinds, most=eye.slices)]
        return slice_batch(views, self._config.vision.patch_size)

    def _conversations(self, sampler: Sampler, stage: Stage) -> Iterator[ConversationBatch]:
        """Batches of conversations of about one length, in random order within a pool."""
        seed, eye_seed = _SEEDS[self._stage]
        for pool in range(self._first // _POOL, -(-self._last // _POOL)):
            size = stage.batch * _POOL
            numbers = range(pool * size, (pool + 1) * size)
            kinds, small_share = stage.kinds, stage.small_share
            if stage.easy_kinds and pool * _POOL < stage.easy_steps:
                kinds, small_share = stage.easy_kinds, 1.0
            samples = [
                sampler.conversation(seed, self._settings.seed, number, kinds=kinds, small_share=small_share)
                for number in numbers
            ]
            samples.sort(key=lambda sample: len(sample.token_ids))
            order = torch.randperm(_POOL, generator=torch.Generator().manual_seed(pool)).tolist()
            for place, part in enumerate(order):
                step = pool * _POOL + place
                if self._first <= step < self._last:
                    chosen = samples[part * stage.batch : (part + 1) * stage.batch]
                    others = range(step * stage.eye_images, (step + 1) * stage.eye_images)
                    for_the_eye = self._eye_batch(sampler, others, eye_seed)
                    yield conversation_batch(chosen, for_the_eye, self._config.vision.patch_size)


class Trainer:
    """The network, its heads and both optimisers."""

    def __init__(self, settings: Settings, directory: Path, start: Path | None = None) -> None:
        """Take up what `directory` holds of an earlier run; if nothing, begin with the eye, or with the last
        stage and the weights of a checkpoint, `start`."""
        self.settings = settings
        self.directory = directory
        self.config = parse_config(settings.checkpoint)
        self.network = Network(self.config)
        initialise(self.network, settings.seed, settings.query_span)
        self.heads = VisionHeads(self.config.vision.hidden_size, self.config.hidden_size)
        self.stage, self.step, self.seconds = "eye", 0, 0.0
        self.optimizers: list[torch.optim.Optimizer] = []
        directory.mkdir(parents=True, exist_ok=True)
        self._start_stage("eye")
        if start is not None:
            self.network.load_state_dict(load_file(start / SINGLE_NAME))
            self._start_stage("more")
        self._load()

    def run(self) -> None:
        """Train to the end, from wherever the saved state stands."""
        self._run_stage(getattr(self.settings, self.stage))
        for stage in _STAGES[_STAGES.index(self.stage) + 1 :]:
            self._start_stage(stage)
            self._save()
            self._run_stage(getattr(self.settings, stage))

    def _start_stage(self, stage: str) -> None:
        """New optimisers: the eye's state would be about another loss."""
        self.stage, self.step = stage, 0
        trained = (
            nn.ModuleList([self.network.vpm, self.network.resampler]) if stage == "eye" else self.network
        )
        matrices: list[Tensor] = []
        others: list[Tensor] = [p for n, p in self.heads.named_parameters() if "ordinal" not in n]
        for name, parameter in trained.named_parameters():
            table = any(part in name for part in ("embed", "lm_head", "query"))
            (others if parameter.ndim != 2 or table else matrices).append(parameter)
        others += self.heads.ordinal.parameters()
        decay = self.settings.weight_decay
        self.optimizers = [
            torch.optim.Muon(matrices, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98)),
        ]

    def _run_stage(self, stage: Stage) -> None:
        batches = Batches(self.settings, self.config, self.stage, self.step, stage.steps)
        loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8)
        meter = _Meter()
        began = time.monotonic() - self.seconds
        for batch in loader:
            self._set_rates(stage)
            with torch.autocast("cpu", torch.bfloat16):
                if self.stage == "eye":
                    loss = self._eye_loss(batch, meter)
                else:
                    loss = self._conversation_loss(batch, meter, stage.eye_weight)
            loss.backward()  # type: ignore[no-untyped-call]
            parameters = [
                p for optimizer in self.optimizers for g in optimizer.param_groups for p in g["params"]
            ]
            nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self.seconds = time.monotonic() - began
            if self.step % _LOG_EVERY == 0:
                self._log(stage, meter)
            if self.step % _SAVE_EVERY == 0 or self.step == stage.steps:
                self._save()

    def _eye_loss(self, batch: SliceBatch, meter: "_Meter") -> Tensor:
        features, embeddings = self.network.see(batch.normalized(), batch.grids)
        loss: Tensor
        loss, right = self.heads(features, embeddings, batch.labels)
        meter.add({"loss": loss, **right})
        return loss

    def _conversation_loss(self, batch: ConversationBatch, meter: "_Meter", eye_weight: float) -> Tensor:
        logits = answer_logits(self.network, batch)
        text_loss = F.cross_entropy(logits.answers.float(), batch.targets[logits.chosen])
        meter.add({"text loss": text_loss})
        features, embeddings = self.network.see(batch.for_the_eye.normalized(), batch.for_the_eye.grids)
        loss, right = self.heads(features, embeddings, batch.for_the_eye.labels)
        meter.add(right)
        if batch.slices is not None:
            eye_loss, right = self.heads(logits.features, logits.embeddings, batch.slices.labels)
            place_loss, right_places = self.heads.place_loss(
                logits.middle, batch.slot_images, batch.slices.labels
            )
            meter.add({"eye loss": eye_loss, **{f"own {k}": v for k, v in right.items()}, **right_places})
            loss = loss + eye_loss + place_loss
        for task, right_answer in right_answers(logits, batch):
            meter.add({task: torch.tensor(float(right_answer))})
        total: Tensor = text_loss + eye_weight * loss
        return total

    def _set_rates(self, stage: Stage) -> None:
        done = self.step / stage.steps
        factor = min(1.0, (self.step + 1) / stage.warm_up) * (1 - done * (1 - stage.final_rate))
        for optimizer, rate in zip(self.optimizers, (stage.matrix_rate, stage.other_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def _log(self, stage: Stage, meter: "_Meter") -> None:
        line = {"stage": self.stage, "step": self.step, "of": stage.steps, "seconds": round(self.seconds)}
        line |= meter.take()
        with (self.directory / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = " ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items())
        print(shown, flush=True)

    def _save(self) -> None:
        state = {
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "settings": asdict(self.settings),
        }
        partial = self.directory / "state.partial"
        torch.save(state, partial)
        partial.replace(self.directory / "state.pt")

    def _load(self) -> None:
        path = self.directory / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self._start_stage(state["stage"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.network.load_state_dict(state["network"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def make_sampler(settings: Settings, config: CheckpointConfig) -> Sampler:
    """The sampler of a configuration."""
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        file.write(demo_vocabulary(config.vocab_size))
        file.flush()
        tokenizer = SentencePieceTokenizer(Path(file.name), TokenIds())
    return Sampler(
        tokenizer,
        config.model_config().image,
        settings.sizes,
        settings.query_span,
        settings.all.turns,
    )


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a batch of conversations gives; the last three are empty where it has no image."""

    answers: Tensor  # logits [answer tokens, vocab]
    chosen: Tensor  # bool [n, t]: the positions they stand at
    features: Tensor  # [slices, patches, vision width]
    embeddings: Tensor  # [slices, queries, hidden]
    middle: Tensor  # the same slots in the middle of the language model


def answer_logits(network: Network, batch: ConversationBatch) -> Outputs:
    """Run a batch."""
    inputs = network.llm.embed(batch.token_ids)
    chosen = batch.targets != IGNORED
    if batch.slices is None:
        logits, _ = network.llm(inputs, chosen)
        return Outputs(logits, chosen, *[torch.empty(0)] * 3)
    features, embeddings = network.see(batch.slices.normalized(), batch.slices.grids)
    slots = (batch.slot_rows[:, None], batch.slot_starts[:, None] + torch.arange(embeddings.shape[1]))
    logits, middle = network.llm(inputs.index_put(slots, embeddings.to(inputs.dtype)), chosen)
    return Outputs(logits, chosen, features, embeddings, middle[slots])


def right_answers(outputs: Outputs, batch: ConversationBatch) -> Iterator[tuple[str, bool]]:
    """Task of every answer, and whether all its tokens are the likeliest: then greedy decoding gives it."""
    hits = torch.zeros(outputs.chosen.shape, dtype=torch.bool)
    hits[outputs.chosen] = outputs.answers.argmax(1) == batch.targets[outputs.chosen]
    for task, row, first, last in batch.answers:
        yield task, bool(hits[row, first : last + 1].all())


class _Meter:
    """Means since the last look."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            number = float(value.detach())
            if number == number:
                self._sums.setdefault(name, []).append(number)

    def take(self) -> dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        self._sums = {}
        return means
