"""Importing what most runs need before the first one comes."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable

from comfy_cpu_nodes.runtimes import import_onnx_runtime

__all__ = ["import_libraries"]


def import_libraries(busy: Callable[[], bool]) -> None:
    """Import the libraries that pictures and ONNX models need, one after the other, until `busy` says to stop.

    What cannot be imported is left to the node that needs it: it will say what is wrong.
    """
    steps: tuple[Callable[[], object], ...] = (lambda: importlib.import_module("PIL.Image"), import_onnx_runtime)
    for step in steps:
        if busy():
            return
        with contextlib.suppress(Exception):
            step()
