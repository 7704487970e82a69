"""``comfy-cpu``: the root command, and the one place that maps errors to exit codes."""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

import click

from comfy_cpu_core.cli.console import print_error
from comfy_cpu_core.errors import ComfyCpuError, Interrupted, UsageError
from comfy_cpu_core.plugins import get_plugins

__all__ = ["build_cli", "main"]

# What a shell adds to a signal's number for the exit code of the process that it ended.
_SIGNALLED = 128

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _ReaderGone(Exception):
    """Whoever read our output went away (``… | head``): not an error of ours."""


class _Ended(BaseException):
    """A signal asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class RootGroup(click.Group):
    """A group whose commands come from the hook ``comfy_cpu_commands``, when first asked for.

    click would end a broken pipe silently with exit code 1, whichever pipe it was; so it must not see one.
    """

    _loaded = False

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for name, command in get_plugins().unique("comfy_cpu_commands", "name", "command").items():
            self.add_command(command, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        self._load()
        return super().get_command(ctx, cmd_name)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _broken_pipes():  # --help prints here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _broken_pipes():
            return super().invoke(ctx)


def build_cli() -> click.Group:
    """The root command with every plugin's commands."""
    cli = RootGroup(
        name="comfy-cpu",
        help=(
            "Run ComfyUI workflows on a CPU: converted, fast, without a GPU.\n\n"
            "Start with `comfy-cpu doctor`, then `comfy-cpu run WORKFLOW --input 1.image=PHOTO`."
        ),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        epilog=(
            "Exit codes: 0 done; 2 usage; 3 workflow, configuration or input file; 4 model or Hub; 5 build or verify; "
            "6 a node failed; 7 target unreachable, refused or past its deadline; 8 blocked by a safety gate; "
            "130 interrupted."
        ),
    )
    return click.version_option(package_name="comfy-cpu-core", prog_name="comfy-cpu")(cli)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line; exits with the code that the error tree gives.

    A signal that asks the process to end (SIGTERM, SIGHUP) is answered as Ctrl-C is: what was begun is tidied up, and
    no temporary file stays. The exit code is then 128 and the signal's number, as a shell has it.
    """
    _open_standard_streams()
    before = threading.enumerate()
    with _tidy_ends():
        code = _run(argv)
    if code > _SIGNALLED and any(thread.daemon for thread in threading.enumerate() if thread not in before):
        _leave_at_once(code)
    sys.exit(code)


def _leave_at_once(code: int) -> NoReturn:
    """Exit without taking the interpreter down.

    A library may still be at what cannot be stopped, such as loading a model; to pull the interpreter and its own
    global objects from under it ends in a segmentation fault now and then.
    """
    atexit._run_exitfuncs()  # temporary directories go here
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


@contextmanager
def _tidy_ends() -> Iterator[None]:
    """Let signals that would end the process at once raise, so that every block is left properly."""
    # Whoever ignores one of them (nohup) means it. Python's own handler of SIGINT raises already.
    numbers = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise _Ended(number)


def _open_standard_streams() -> None:
    """Open what the caller closed (``>&-``) on nothing: Python has None there, and the next file would get its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
                setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _run(argv: list[str] | None) -> int:
    try:
        code = build_cli().main(args=argv, prog_name="comfy-cpu", standalone_mode=False)
        with _broken_pipes():
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return Interrupted.exit_code
    except ComfyCpuError as error:
        print_error(str(error), error.remedy)
        return error.exit_code
    except _ReaderGone:
        return 0
    except _Ended as end:
        with suppress(OSError):  # with SIGHUP the terminal may be gone
            print_error(f"ended by {signal.Signals(end.number).name}")
        return _SIGNALLED + end.number
    except OSError as error:
        # A full disk below the output, or a place for temporary files that is none: the machine's fault, not ours.
        return _report_os_error(error)
    return code if isinstance(code, int) else 0


def _report_os_error(error: OSError) -> int:
    """Report what a file, or the output itself, answered; give the exit code."""
    with suppress(OSError):
        print_error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)
    return ComfyCpuError.exit_code


def _silence(stream: TextIO) -> None:
    # Python flushes once more when it ends, and would complain: let it do so into nothing.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _broken_pipes() -> Iterator[None]:
    """Tell a reader that went away from any other pipe that broke."""
    try:
        yield
    except BrokenPipeError as error:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not gone:
            raise ComfyCpuError(f"a connection to another program broke: {error}") from error
        for stream in gone:
            _silence(stream)
        raise _ReaderGone from error


def _has_no_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file behind it
        return False
