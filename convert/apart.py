"""Owns running one heavy step in a process of its own, whose memory is gone when it ends."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

from convert.errors import ConvertError

Result = TypeVar("Result")

# Below it a process of its own costs more time than the memory it gives back is worth.
APART_ABOVE_BYTES = 512 << 20


def run_sized(num_bytes: int, function: Callable[..., Result], *arguments: object) -> Result:
    """`function(*arguments)`, apart where it works on a checkpoint of more than APART_ABOVE_BYTES."""
    if num_bytes > APART_ABOVE_BYTES:
        return run_apart(function, *arguments)
    return function(*arguments)


def run_apart(function: Callable[..., Result], *arguments: object) -> Result:
    """`function(*arguments)` in a fresh interpreter; both must be picklable, errors come back as they are.

    Whatever interrupts the waiting parent ends the child too. Raises ConvertError where the child was killed.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, os.getpid(), function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        outcome, value = ours.recv()
    except EOFError:
        process.join()
        raise ConvertError(_death(process.exitcode)) from None
    finally:
        ours.close()
        process.terminate()
        process.join()
    if outcome == "error":
        raise value
    return cast(Result, value)


def _child(
    pipe: Connection, parent: int, function: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells both; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if os.getppid() != parent:
        return
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            message: tuple[str, object] = ("value", function(*arguments))
        except Exception as error:  # whatever it is, the parent raises it
            message = ("error", error if isinstance(error, ConvertError) else _portable(error))
        pipe.send(message)
    sys.stdout.flush()


def _portable(error: Exception) -> RuntimeError:
    """Not every exception survives pickling; its text does."""
    return RuntimeError(f"{type(error).__name__}: {error}")


def _death(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return (
            "a step was killed, most likely for want of memory: close other programs or use a larger machine"
        )
    return f"a step ended unexpectedly with exit code {exit_code}: run again with more memory"
