"""``comfy-cpu``: the root command, and the one place that maps errors to exit codes."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

import click

from comfy_cpu_core.cli.console import print_error
from comfy_cpu_core.errors import ComfyCpuError, Interrupted, UsageError
from comfy_cpu_core.plugins import get_plugins

__all__ = ["build_cli", "main"]


class _ReaderGone(Exception):
    """Whoever read our output went away (``… | head``): not an error of ours."""


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
    """Run the command line; exits with the code that the error tree gives."""
    sys.exit(_run(argv))


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
    return code if isinstance(code, int) else 0


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
            # Python flushes once more when it ends, and would complain: let it do so into nothing.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise _ReaderGone from error


def _has_no_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file behind it
        return False
