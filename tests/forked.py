"""Run functions that may be refused, also in forked children: cheap enough for many races and kills."""

from __future__ import annotations

import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from helmol.errors import HelmolError


def tried(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, str | None]:
    """Return what a function returns, or nothing and the one line that helmol refuses it with."""
    try:
        return function(*arguments, **options), None
    except HelmolError as error:
        text = str(error)
    assert "\n" not in text
    assert len(text) < 1500
    return None, text


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, from Python 3.12
        return os.fork()


def _outcome(function: Callable[[], Any]) -> dict[str, Any]:
    """Call a function; return its result, or what helmol said."""
    result, refusal = tried(function)
    return {"ok": result} if refusal is None else {"refused": refusal}


def child(function: Callable[[], Any], *, wait: int | None = None) -> tuple[int, int]:
    """Start a function in a child, after a byte on ``wait``; return the process and where it answers."""
    read, write = os.pipe()
    process = _fork()
    if process == 0:
        code = 1
        try:
            os.close(read)
            if wait is not None:
                os.read(wait, 1)
            os.write(write, json.dumps(_outcome(function)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    return process, read


def answer(process: int, read: int) -> dict[str, Any]:
    """Wait for a child and return its outcome; a child that died of anything else has none."""
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return json.loads(text) if text else {"died": code}


def in_child(function: Callable[[], Any]) -> dict[str, Any]:
    """Return the outcome of a function in a child."""
    return answer(*child(function))


def together(functions: Sequence[Callable[[], Any]]) -> list[dict[str, Any]]:
    """Run functions at the same time, each in a child, and return their outcomes."""
    wait, go = os.pipe()
    started = [child(function, wait=wait) for function in functions]
    os.write(go, bytes(len(functions)))
    outcomes = [answer(*one) for one in started]
    os.close(wait)
    os.close(go)
    return outcomes


def killed_after(function: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Run a function in a child that gets ``kill -9`` after some time; return its outcome, if it has one."""
    process, read = child(function)
    end = time.monotonic() + seconds
    while (
        time.monotonic() < end and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(min(0.005, max(0.0, end - time.monotonic())))
    os.kill(process, signal.SIGKILL)
    return answer(process, read)
