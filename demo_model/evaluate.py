"""Owns asking a running service the exam's questions over HTTP, and the table of what it knew.

`python -m demo_model evaluate`
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo_model.exam import Case, cases
from demo_model.rows import ROWS, Row
from service.artifacts import ImageConfig

_CLIENTS = 8
_START_SECONDS = 120
_MAX_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Mark:
    """How one row went."""

    row: Row
    right: int
    asked: int
    mistakes: tuple[tuple[Case, str], ...]  # with what was answered

    @property
    def accuracy(self) -> float:
        """Share of exact matches."""
        return self.right / self.asked


def examine(
    url: str, count: int, seed: int, image_config: ImageConfig, rows: Sequence[Row] = ROWS
) -> Iterator[Mark]:
    """Ask `count` cases of every row, several at a time, greedily."""
    with ThreadPoolExecutor(_CLIENTS) as pool:
        for row in rows:
            drawn = list(cases(row, count, seed, image_config))
            answers = list(pool.map(lambda case: ask_case(url, case), drawn))
            mistakes = [
                (case, answer) for case, answer in zip(drawn, answers, strict=True) if answer != case.answer
            ]
            yield Mark(row, count - len(mistakes), count, tuple(mistakes))


def ask_case(url: str, case: Case, **fields: Any) -> str:
    """The answer to a case's last question."""
    if case.before is None:
        return ask(url, case_messages(case), **fields)
    first = case_messages(replace(case, question=case.before))
    said = {"role": "assistant", "content": ask(url, first, **fields)}
    return ask(url, [*first, said, {"role": "user", "content": case.question}], **fields)


def case_messages(case: Case) -> list[dict[str, Any]]:
    """A case's question and images, without what was asked before."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": image}} for image in case.images
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": case.question}]}]


def ask(url: str, messages: list[dict[str, Any]], **fields: Any) -> str:
    """One greedy answer; raises urllib's HTTPError."""
    body = {"messages": messages, "temperature": 0, "max_tokens": _MAX_TOKENS, **fields}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as reply:
        content = json.load(reply)["choices"][0]["message"]["content"]
    return str(content)


@contextmanager
def running_service(
    model_dir: Path, weights: str, command: Sequence[str] = (sys.executable, "-m", "service")
) -> Iterator[str]:
    """A service on a free port of this machine for the time of the block; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"MODEL_DIR": str(model_dir), "WEIGHTS": weights, "PORT": str(port), "LOG_LEVEL": "warning"}
    environment = {**os.environ, **{f"MINICPMV_{name}": value for name, value in settings.items()}}
    process = subprocess.Popen(command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def table(marks: dict[str, list[Mark]]) -> str:
    """Markdown: a line a row, a column a variant."""
    names = list(marks)
    lines = [f"| asked | aim | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for index, row in enumerate(mark.row for mark in marks[names[0]]):
        aim = "" if row.minimum is None else f"{row.minimum:.2f}"
        figures = [f"{marks[name][index].accuracy:.3f}" for name in names]
        lines.append(f"| {row.name} | {aim} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the service did not start: see its log above")
