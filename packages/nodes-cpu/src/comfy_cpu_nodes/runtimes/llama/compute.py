"""Long calls into llama.cpp, which can be stopped."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

from comfy_cpu_nodes.host import check_interrupt

__all__ = ["Compute"]

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds between two looks at whether the run should end.
_PATIENCE = 0.05


class Compute:
    """A thread that llama.cpp computes in, while the caller watches for the end of its run.

    It is always the same thread, because OpenMP keeps a team of threads for each thread that ever called it. The caller
    stays where it is, since it is the caller's thread that knows its run and receives Ctrl-C.

    To stop, llama.cpp asks a C function again and again, from the middle of its work. A Python function would have to
    wait for the interpreter's lock there. So it asks ``strlen`` about `_flag`: 0 is no, 1 is yes.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="comfy-cpu-llama")
        self._flag = ctypes.create_string_buffer(2)
        self._strlen = ctypes.CDLL(None).strlen

    def stop_function(self, kind: Any) -> tuple[Any, ctypes.c_void_p]:
        """The function of ctypes type `kind` that llama.cpp is to ask, and the argument to ask it with."""
        return ctypes.cast(self._strlen, kind), ctypes.cast(self._flag, ctypes.c_void_p)

    @property
    def stopped(self) -> bool:
        """Whether the call that is under way should end."""
        return self._flag.value != b""

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in the thread and wait for it.

        Raises:
            Interrupted, DeadlineExceeded, KeyboardInterrupt: the run should end; the function has returned by then.
            Exception: what the function raises.
        """
        self._flag.value = b""
        future: Future[T] = self._threads.submit(function, *arguments, **named)
        try:
            while not wait([future], _PATIENCE).done:
                check_interrupt()
        except BaseException:
            self._flag.value = b"1"
            wait([future])
            raise
        return future.result()

    def close(self) -> None:
        """End the thread."""
        self._threads.shutdown()
