"""The root command: exit codes, one-line errors, interruptions, broken pipes, broken plugins."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pluggy
import pytest

from comfy_cpu_core import errors, hookspecs
from comfy_cpu_core.cli import main
from comfy_cpu_core.cli.main import build_cli
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.plugins import Plugins

#: `comfy_cpu_core.cli.main` as an attribute is the function.
MODULE = importlib.import_module("comfy_cpu_core.cli.main")


@dataclass(frozen=True)
class Answer:
    code: int | str | None
    out: str
    err: str


Call = Callable[..., Answer]


def plugins_of(**plugins: Any) -> Plugins:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, plugin in plugins.items():
        manager.register(plugin, name=name)
    return Plugins(manager)


def plugin_with(*commands: object) -> SimpleNamespace:
    @hookimpl
    def comfy_cpu_commands() -> tuple[object, ...]:
        return commands

    return SimpleNamespace(comfy_cpu_commands=comfy_cpu_commands)


def command(action: Callable[[], object]) -> click.Command:
    return click.Command("act", callback=action, help="Do it.")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call the command line with the plugins that are given by name."""

    def call(*arguments: str, **plugins: Any) -> Answer:
        found = plugins_of(**plugins)
        monkeypatch.setattr(MODULE, "get_plugins", lambda: found)
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        captured = capsys.readouterr()
        return Answer(stopped.value.code, captured.out, captured.err)

    return call


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


CODES = {
    "ComfyCpuError": 1,
    "UsageError": 2,
    "InputError": 3,
    "WorkflowError": 3,
    "WorkflowInvalid": 3,
    "ModelError": 4,
    "ModelMissing": 4,
    "ModelCorrupt": 4,
    "HubError": 4,
    "BuildError": 5,
    "NodeError": 6,
    "TargetError": 7,
    "DeadlineExceeded": 7,
    "ContentBlocked": 8,
    "Interrupted": 130,
}


def test_every_error_class_has_a_code_here() -> None:
    assert set(errors.__all__) == set(CODES)


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_code_of_every_error(call: Call, name: str, code: int) -> None:
    error = getattr(errors, name)("the thing\nat fault", remedy="do\nthis")
    answer = call("act", test=plugin_with(command(raising(error))))
    assert answer == Answer(code, "", "error: the thing at fault\nhint: do this\n")


def test_an_error_without_a_remedy_has_no_hint(call: Call) -> None:
    answer = call("act", test=plugin_with(command(raising(errors.ModelMissing("not there")))))
    assert answer.err == "error: not there\n"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_exits_with_130(call: Call, interruption: BaseException) -> None:
    answer = call("act", test=plugin_with(command(raising(interruption))))
    assert answer.code == 130
    assert "error: interrupted" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (6, 6), ("text", 0)])
def test_a_command_gives_its_exit_code(call: Call, given: object, code: int) -> None:
    assert call("act", test=plugin_with(command(lambda: given))).code == code


def test_context_exit_gives_its_code(call: Call) -> None:
    assert call("act", test=plugin_with(command(lambda: click.get_current_context().exit(5)))).code == 5


@pytest.mark.parametrize("arguments", [("nothing-like-it",), ("act", "--nothing"), ("act", "surplus"), ("--nothing",)])
def test_bad_usage_exits_with_2(call: Call, arguments: tuple[str, ...]) -> None:
    answer = call(*arguments, test=plugin_with(command(lambda: None)))
    assert answer.code == 2
    assert answer.out == ""
    assert "Error:" in answer.err
    assert "Traceback" not in answer.err


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plugins_of(test=plugin_with(command(raising(ZeroDivisionError("a bug")))))
    monkeypatch.setattr(MODULE, "get_plugins", lambda: found)
    with pytest.raises(ZeroDivisionError):
        main(["act"])


def test_version(call: Call) -> None:
    answer = call("--version")
    assert answer == Answer(0, f"comfy-cpu, version {metadata.version('comfy-cpu-core')}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands_and_the_exit_codes(call: Call, flag: str) -> None:
    answer = call(flag, test=plugin_with(command(lambda: None)))
    assert answer.code == 0
    assert "act  Do it." in answer.out
    assert "130 interrupted" in " ".join(answer.out.split())


def test_the_help_of_every_command_is_laid_out() -> None:
    root = build_cli()
    todo: list[tuple[str, click.Command]] = [("comfy-cpu", root)]
    seen = []
    while todo:
        path, found = todo.pop()
        context = click.Context(found, info_name=path)
        assert "\\b" not in found.get_help(context), f"{path}: a raw docstring, in which click finds no backspace"
        seen.append(path)
        if isinstance(found, click.Group):
            children = [found.get_command(context, name) for name in found.list_commands(context)]
            todo += [(f"{path} {child.name}", child) for child in children if child is not None]
    assert {"comfy-cpu doctor", "comfy-cpu plugins list"} <= set(seen)


def test_no_command_shows_the_help(call: Call) -> None:
    answer = call()
    assert answer.code == 2
    assert "Usage: comfy-cpu" in answer.err


def test_a_broken_plugin_does_not_break_the_help(call: Call) -> None:
    class Raises:
        @hookimpl
        def comfy_cpu_commands(self) -> list[click.Command]:
            raise ImportError("no such library")

    answer = call(
        "--help",
        broken=Raises(),
        silly=plugin_with("a command?", click.Command(None)),
        works=plugin_with(command(print)),
    )
    assert answer.code == 0
    assert "act  Do it." in answer.out
    assert answer.err == ""


def test_two_plugins_with_one_command_are_an_error_that_names_both(call: Call) -> None:
    answer = call("act", one=plugin_with(command(print)), two=plugin_with(command(print)))
    assert answer.code == 2
    assert "'one' and 'two' both bring the command 'act'" in answer.err


def test_plugins_are_not_asked_before_a_command_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "get_plugins", raising(AssertionError("asked")))
    assert build_cli().name == "comfy-cpu"


def test_another_broken_pipe_is_an_error_and_no_silent_end(call: Call) -> None:
    answer = call("act", test=plugin_with(command(raising(BrokenPipeError(32, "Broken pipe")))))
    assert answer.code == 1
    assert answer.err.startswith("error: a connection to another program broke")


# Whole processes


@pytest.fixture
def plugin_environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which a distribution brings a plugin that works and one that cannot be imported."""
    (tmp_path / "works_of_tests.py").write_text(
        "import sys, time, click\n"
        "from comfy_cpu_core.cli.console import print_json\n"
        "from comfy_cpu_core.hookspecs import hookimpl\n"
        "def wait():\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
        "def talk():\n"
        "    for n in range(100_000):\n"
        "        click.echo(n)\n"
        "def whole():\n"
        "    print_json('x' * 10_000_000)\n"
        "def stuck():\n"
        "    import tempfile, threading\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    kept.append(tempfile.TemporaryDirectory(prefix='of-tests-'))\n"
        "    wait()\n"
        "kept = []\n"
        "def little():\n"
        "    sys.stdin.read()\n"
        "    print_json('x')\n"
        "@hookimpl\n"
        "def comfy_cpu_commands():\n"
        "    return [click.Command(f.__name__, callback=f) for f in (wait, talk, whole, stuck, little)]\n"
    )
    (tmp_path / "broken_of_tests.py").write_text("import no_such_library_of_tests\n")
    info = tmp_path / "of_tests-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-tests\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[comfy_cpu]\nworks-of-tests = works_of_tests\nbroken-of-tests = broken_of_tests\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


RUN = [sys.executable, "-c", "from comfy_cpu_core.cli import main; main()"]


def test_a_distribution_that_cannot_be_imported(plugin_environment: dict[str, str]) -> None:
    shown = subprocess.run(
        [*RUN, "--help"], env=plugin_environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "talk" in shown.stdout
    listed = subprocess.run(
        [*RUN, "plugins", "list"], env=plugin_environment, capture_output=True, text=True, check=False, timeout=60
    )
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("broken-of-tests")]
    assert "No module named 'no_such_library_of_tests'" in line


@pytest.mark.parametrize("talker", ["talk", "whole"])
def test_a_reader_that_goes_away_is_no_error(plugin_environment: dict[str, str], talker: str) -> None:
    with subprocess.Popen(
        [*RUN, talker], env=plugin_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(2)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_a_reader_that_went_away_before_the_last_flush(plugin_environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*RUN, "little"],
        env=plugin_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_control_c(plugin_environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*RUN, "wait"], env=plugin_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.1)  # until it sleeps
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_who_is_asked_to_end_tidies_up_even_if_a_thread_cannot(
    plugin_environment: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        [*RUN, "stuck"],
        env={**plugin_environment, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        assert [path.name[:9] for path in temporary.iterdir()] == ["of-tests-"]
        time.sleep(0.1)  # until it sleeps
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said.strip() == ("error: interrupted" if number == signal.SIGINT else f"error: ended by {number.name}")
    assert list(temporary.iterdir()) == []


def test_the_handlers_of_signals_are_given_back(call: Call) -> None:
    def look() -> None:
        assert callable(signal.getsignal(signal.SIGTERM))

    assert call("act", test=plugin_with(command(look))).code == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_closed(plugin_environment: dict[str, str], closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *RUN, "--version"],
        env=plugin_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("comfy-cpu") is (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["talk", "whole", "--version"])
def test_an_output_that_is_full_is_an_error_in_one_line(plugin_environment: dict[str, str], command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*RUN, command],
            env=plugin_environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")
