"""``comfy-cpu``: the root command, and the one place that maps errors to exit codes."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from comfy_cpu_core.cli.console import print_error
from comfy_cpu_core.errors import ComfyCpuError, Interrupted, UsageError
from comfy_cpu_core.plugins import get_plugins

__all__ = ["build_cli", "main"]


class RootGroup(click.Group):
    """A group whose commands come from the hook ``comfy_cpu_commands``, when first asked for."""

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
    cli = build_cli()
    try:
        code = cli.main(args=argv, prog_name="comfy-cpu", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        sys.exit(Interrupted.exit_code)
    except ComfyCpuError as error:
        print_error(str(error), error.remedy)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`… | head`): not an error of ours.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
