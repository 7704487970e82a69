"""Programs that build images: run to their end, their output read as it comes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.image import CommandOutput

__all__ = ["run", "stream"]


def run(
    command: Sequence[str], environ: Mapping[str, str], *, data: bytes = b"", timeout_s: float | None = 120
) -> CommandOutput:
    """Run a program to its end; what it prints is text, whatever its bytes are.

    Raises:
        BuildError: it is not installed, or does not end in time (it is killed).
    """
    try:
        done = subprocess.run(
            list(command), check=False, input=data, capture_output=True, timeout=timeout_s, env=dict(environ)
        )
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"`{' '.join(command[:3])} …` did not end within {timeout_s:.0f} s") from None
    return CommandOutput(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def stream(command: Sequence[str], environ: Mapping[str, str], log: Path | None, on_line: Callable[[str], None]) -> int:
    """Run a program, hand on each line that it prints, keep all of them in `log`; give its exit code.

    It is ended if this is left by an exception.

    Raises:
        BuildError: it is not installed.
    """
    with _appending(log) as kept:
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environ),
            )
        except FileNotFoundError:
            raise BuildError(f"{command[0]} is not installed") from None
        try:
            if process.stdout is None:
                raise AssertionError("a pipe was asked for")
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip("\r\n")
                kept.write(line + "\n")
                kept.flush()
                on_line(line)
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def _appending(log: Path | None) -> Iterator[IO[Any]]:
    if log is None:
        with Path("/dev/null").open("w") as nothing:
            yield nothing
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        yield file
