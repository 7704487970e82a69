"""``comfy-cpu nodes install``, with a Python that only pretends: what it is told, and what it says is made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_cpu_core.cli import main
from comfy_cpu_core.comfyui import (
    checkout,
    find_comfyui,
    find_python,
    inspect_python,
    install,
    interpreter,
    plan,
    sources,
)
from comfy_cpu_core.errors import BuildError, InputError, UsageError

VERSION = metadata.version("comfy-cpu-core")

# What the real ones look like, as far as we read them.
PRETEND = """#!{python}
import json, pathlib, sys
me = pathlib.Path(__file__)
says = json.loads(me.with_suffix(".json").read_text())
with me.with_suffix(".log").open("a") as log:
    log.write(json.dumps([sys.argv[1:], str(pathlib.Path.cwd())]) + "\\n")
if sys.argv[1] == "-c":
    print(says["look"])
elif sys.argv[2] == "pip":
    constraints = pathlib.Path(sys.argv[sys.argv.index("--constraint") + 1])
    me.with_suffix(".constraints").write_text(constraints.read_text())
    pathlib.Path(sys.argv[sys.argv.index("--report") + 1]).write_text(json.dumps(says["report"]))
    print(says["pip"])
    sys.exit(says["pip_code"])
else:
    print(says["pack"])
    sys.exit(says["pack_code"])
"""

TORCH = {
    "torch": "2.5.1+cpu",
    "numpy": "1.26.4",
    "pip": "24.0",
    "comfy-cpu-nodes": "0.0.1",
    "Odd_Name": "not-a-version",
}
REPORT = {"install": [{"metadata": {"name": "comfy-cpu-nodes", "version": "0.1.0"}}]}


class Pretender:
    """A ComfyUI with a Python that answers what a test wants."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("main.py", "folder_paths.py"):
            (root / name).touch()
        (root / "comfyui_version.py").write_text('# generated\n__version__ = "0.3.64"\n')
        self.custom_nodes = root / "custom_nodes"
        self.custom_nodes.mkdir()
        self.python = root / "venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(PRETEND.format(python=sys.executable))
        self.python.chmod(0o755)
        self.says: dict[str, Any] = {}
        pack = {"folder": str(self.custom_nodes / "comfy-cpu"), "classes": ["A"], "disabled": [], "missing": {}}
        self.let(distributions=TORCH, report=REPORT, pip="ok", pip_code=0, pack=json.dumps(pack), pack_code=0)

    def let(self, **says: Any) -> None:
        distributions = says.pop("distributions", None)
        if distributions is not None:
            says["look"] = json.dumps({"version": [3, 12, 1], "distributions": distributions})
        self.says |= says
        self.python.with_suffix(".json").write_text(json.dumps(self.says))

    def calls(self) -> list[list[str]]:
        return [json.loads(line)[0] for line in self.python.with_suffix(".log").read_text().splitlines()]

    def directories(self) -> set[str]:
        return {json.loads(line)[1] for line in self.python.with_suffix(".log").read_text().splitlines()}

    def pip_call(self) -> list[str]:
        (call,) = [call for call in self.calls() if call[:2] == ["-m", "pip"]]
        return call


@pytest.fixture
def pretender(tmp_path: Path) -> Pretender:
    root = tmp_path / "ComfyUI"
    root.mkdir()
    return Pretender(root)


@pytest.fixture
def from_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if we had been installed from an index."""
    core = SimpleNamespace(version=VERSION, read_text=lambda name: None)
    monkeypatch.setattr(sources.metadata, "distribution", lambda name: core)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    def call(*arguments: str | Path) -> SimpleNamespace:
        with pytest.raises(SystemExit) as stopped:
            main(["nodes", "install", *map(str, arguments)])
        captured = capsys.readouterr()
        return SimpleNamespace(code=stopped.value.code, out=captured.out, err=captured.err)

    return call


# --- finding --------------------------------------------------------------------------------------------------------


def test_a_comfyui_is_found(pretender: Pretender) -> None:
    found = find_comfyui(pretender.root)
    assert (found.root, found.version) == (pretender.root, "0.3.64")
    assert found.models == pretender.root / "models"
    assert find_python(found) == pretender.python
    assert find_comfyui(pretender.root.parent) == found, "a portable package has ComfyUI/ inside"


def test_a_comfyui_that_does_not_say_its_version(pretender: Pretender) -> None:
    (pretender.root / "comfyui_version.py").write_text("")
    assert find_comfyui(pretender.root).version is None
    (pretender.root / "comfyui_version.py").unlink()
    assert find_comfyui(pretender.root).version is None


@pytest.mark.parametrize("place", checkout._PYTHONS)
def test_where_its_python_may_be(pretender: Pretender, place: str) -> None:
    found = find_comfyui(pretender.root)
    pretender.python.unlink()
    python = found.root / place
    python.parent.mkdir(parents=True, exist_ok=True)
    python.touch()
    assert find_python(found) == python


def test_no_python_is_an_error_that_names_the_option(pretender: Pretender) -> None:
    pretender.python.unlink()
    with pytest.raises(UsageError, match="cannot tell which Python") as caught:
        find_python(find_comfyui(pretender.root))
    assert caught.value.remedy == "name it: --python PATH"


def test_no_comfyui(pretender: Pretender, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no ComfyUI"):
        find_comfyui(tmp_path / "nowhere")
    pretender.custom_nodes.rmdir()
    with pytest.raises(InputError, match="has no directory custom_nodes"):
        find_comfyui(pretender.root)


# --- its Python -----------------------------------------------------------------------------------------------------


def test_this_python() -> None:
    found = inspect_python(Path(sys.executable))
    assert found.version == sys.version_info[:3]
    assert found.distributions["comfy-cpu-core"] == VERSION


def test_names_are_normalised(pretender: Pretender) -> None:
    assert "odd-name" in inspect_python(pretender.python).distributions


def test_a_relative_path_is_made_absolute(pretender: Pretender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pretender.root)
    assert inspect_python(Path("venv/bin/python")).path == pretender.python
    assert str(pretender.root) not in pretender.directories(), "modules of ComfyUI must not hide Python's own"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be run"),
        ("#!/nowhere/python\n", "cannot be run"),
        (f"#!{sys.executable}\nprint('hello')\n", "does not answer as a Python does: exit code 0"),
        (f"#!{sys.executable}\nraise SystemExit('broken')\n", "does not answer as a Python does: broken"),
    ],
)
def test_what_is_no_python(tmp_path: Path, content: str | None, message: str) -> None:
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o755)
    with pytest.raises(UsageError, match=message) as caught:
        inspect_python(python)
    assert "--python PATH" in (caught.value.remedy or "")


def test_an_old_python(pretender: Pretender) -> None:
    pretender.let(look=json.dumps({"version": [3, 10, 4], "distributions": {}}))
    with pytest.raises(UsageError, match=r"is Python 3\.10\.4; comfy-cpu needs 3\.11"):
        inspect_python(pretender.python)


def test_a_python_without_torch_is_not_comfyuis(pretender: Pretender) -> None:
    pretender.let(distributions={"pip": "24.0"})
    with pytest.raises(UsageError, match="has no torch"):
        plan(find_comfyui(pretender.root), pretender.python)


@pytest.mark.parametrize(
    ("own", "is_own"), [("24.0", True), ("22.3", True), ("22.2", False), ("?", False), (None, False)]
)
def test_which_pip(pretender: Pretender, own: str | None, is_own: bool) -> None:
    pretender.let(distributions={"pip": own} if own else {})
    command = interpreter.pip_command(inspect_python(pretender.python))
    if is_own:
        assert command == [str(pretender.python), "-m", "pip"]
    else:
        assert command == [sys.executable, "-m", "pip", "--python", str(pretender.python)]


@pytest.mark.parametrize(("own", "said"), [(None, "no pip"), ("9.0", r"an old pip \(9\.0\)")])
def test_no_pip_anywhere(pretender: Pretender, monkeypatch: pytest.MonkeyPatch, own: str | None, said: str) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(interpreter.metadata, "version", version)
    pretender.let(distributions={"pip": own} if own else {})
    with pytest.raises(UsageError, match=f"has {said}") as caught:
        interpreter.pip_command(inspect_python(pretender.python))
    assert "-m ensurepip" in (caught.value.remedy or "")


# --- what is installed ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("from_index")
@pytest.mark.parametrize(
    ("extras", "requirement"),
    [
        ((), f"comfy-cpu-nodes=={VERSION}"),
        (("openvino",), f"comfy-cpu-nodes[openvino]=={VERSION}"),
        (("a", "b", "a"), f"comfy-cpu-nodes[a,b]=={VERSION}"),
    ],
)
def test_from_an_index_the_same_version(extras: tuple[str, ...], requirement: str) -> None:
    assert sources.requirements(extras) == [requirement]


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkout that core was installed from."""
    origin = {"url": (tmp_path / "a b/packages/core").as_uri(), "dir_info": {"editable": True}}
    core = SimpleNamespace(version=VERSION, read_text=lambda name: json.dumps(origin))
    monkeypatch.setattr(sources.metadata, "distribution", lambda name: core)
    return tmp_path / "a b"


def member(repository: Path, folder: str, name: str, lines: str = "") -> Path:
    directory = repository / folder
    directory.mkdir(parents=True)
    (directory / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n{lines}')
    return directory


def test_from_a_checkout_the_directories(repository: Path) -> None:
    extras = """
dependencies = ["comfy-cpu-core==0.1.0", "numpy>=1.26"]
[project.optional-dependencies]
openvino = ["openvino"]
models = ["comfy_cpu_plugin_ben2", "comfy-cpu-plugin-elsewhere"]
more = ["comfy-cpu-plugin-unwanted"]
"""
    core = member(repository, "packages/core", "comfy-cpu-core", 'dependencies = ["click"]')
    nodes = member(repository, "packages/nodes-cpu", "comfy-cpu-nodes", extras)
    ben2 = member(repository, "plugins/ben2", "Comfy_CPU-plugin.ben2", 'dependencies = ["comfy-cpu-core>=0.1,<0.2"]')
    member(repository, "plugins/unwanted", "comfy-cpu-plugin-unwanted")
    member(repository, "tools/other", "other")
    assert sources.requirements(["openvino", "models"]) == [f"{nodes}[openvino,models]", str(core), str(ben2)]
    assert sources.requirements([]) == [str(nodes), str(core)]


def test_core_alone_in_a_directory_takes_the_nodes_from_the_index(repository: Path) -> None:
    member(repository, "packages/core", "comfy-cpu-core")
    assert sources.requirements([]) == [f"comfy-cpu-nodes=={VERSION}"]


def test_this_checkout() -> None:
    directories = sources.requirements(["models"])
    assert directories[0].endswith("/packages/nodes-cpu[models]")
    assert {Path(directory).parent.name for directory in directories} == {"packages", "plugins"}


@pytest.mark.usefixtures("from_index")
def test_what_is_there_stays_as_it_is(pretender: Pretender) -> None:
    done = install(plan(find_comfyui(pretender.root), pretender.python), find_links=["/wheels"])
    constraints = pretender.python.with_suffix(".constraints").read_text().splitlines()
    assert constraints == ["numpy==1.26.4", "pip==24.0", "torch==2.5.1+cpu"], "all but ours, and what is no version"
    call = pretender.pip_call()
    assert call[-1] == f"comfy-cpu-nodes[openvino,models]=={VERSION}"
    assert call[call.index("--find-links") + 1] == "/wheels"
    assert "--dry-run" not in call
    assert done.packages == (("comfy-cpu-nodes", "0.1.0"),)
    assert done.folder == pretender.custom_nodes / "comfy-cpu"
    assert pretender.calls()[-1] == [
        "-m", "comfy_cpu_nodes.pack", str(pretender.custom_nodes), "--extra", "openvino", "--extra", "models",
    ]  # fmt: skip
    assert str(pretender.root) not in pretender.directories()


@pytest.mark.usefixtures("from_index")
def test_a_dry_run_writes_nothing(pretender: Pretender) -> None:
    done = install(plan(find_comfyui(pretender.root), pretender.python), dry_run=True)
    assert "--dry-run" in pretender.pip_call()
    assert (done.packages, done.folder) == ((("comfy-cpu-nodes", "0.1.0"),), None)
    assert not any("comfy_cpu_nodes.pack" in call for call in pretender.calls())


CONFLICT = """\
ERROR: Cannot install comfy-cpu-core because these package versions have conflicting dependencies.

The conflict is caused by:
    comfy-cpu-core 0.1.0 depends on rich>=13.7
    The user requested (constraint) rich==10.0.0

To fix this you could try to:
ERROR: ResolutionImpossible: for help visit somewhere"""


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (CONFLICT, r"rich==10\.0\.0 in .* would have to change \(comfy-cpu-core 0\.1\.0 depends on rich>=13\.7\)"),
        ("Collecting x\nERROR: No matching distribution found for x", "into .*: No matching distribution found for x"),
        ("ERROR: a\nERROR: b\nnote: c", "into .*: b"),
        ("Segmentation fault", "into .*: Segmentation fault"),
        ("", "into .*: exit code 3"),
    ],
)
@pytest.mark.usefixtures("from_index")
def test_pip_fails(pretender: Pretender, output: str, message: str) -> None:
    pretender.let(pip=output, pip_code=3)
    lines: list[str] = []
    with pytest.raises(BuildError, match=message) as caught:
        install(plan(find_comfyui(pretender.root), pretender.python), on_line=lines.append)
    assert caught.value.remedy
    assert lines == [line for line in output.splitlines() if line]
    assert not any("comfy_cpu_nodes.pack" in call for call in pretender.calls())


@pytest.mark.parametrize(
    ("output", "code", "message", "remedy"),
    [
        ("cannot write X\ncheck the disk", 5, "cannot write X", "check the disk"),
        ("Traceback\nImportError: y", 1, "do not work: ImportError: y", "see the whole error: "),
        ("no json", 0, "do not work: no json", "see the whole error: "),
        ("", 1, "do not work: .* exit code 1", "see the whole error: "),
    ],
)
@pytest.mark.usefixtures("from_index")
def test_the_folder_cannot_be_written(pretender: Pretender, output: str, code: int, message: str, remedy: str) -> None:
    pretender.let(pack=output, pack_code=code)
    with pytest.raises(BuildError, match=message) as caught:
        install(plan(find_comfyui(pretender.root), pretender.python))
    assert (caught.value.remedy or "").startswith(remedy)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("from_index")
def test_the_command(pretender: Pretender, cli: Callable[..., SimpleNamespace]) -> None:
    pack = json.loads(pretender.says["pack"]) | {"disabled": ["B"], "missing": {"C": "needs c: pip install c"}}
    pretender.let(pack=json.dumps(pack), pip="Requirement already satisfied: x\nCollecting y")
    answer = cli(pretender.root)
    assert answer.code == 0, answer.err
    assert "ComfyUI 0.3.64 in" in answer.err
    assert "Collecting y" in answer.err
    assert "already satisfied" not in answer.err
    assert "1 node classes, 1 switched off" in answer.out
    assert "warning: C is not among them: needs c: pip install c" in answer.err
    assert f"--models {pretender.root}/models" in answer.out


@pytest.mark.usefixtures("from_index")
def test_the_command_for_programs(
    pretender: Pretender, cli: Callable[..., SimpleNamespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wheels").mkdir()
    answer = cli(
        "ComfyUI", "--python", "ComfyUI/venv/bin/python", "--extra", "onnxruntime", "--find-links", "wheels",
        "--find-links", "https://example.invalid/simple", "--dry-run", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads(answer.out) == {
        "comfyui": {"root": str(pretender.root), "version": "0.3.64"},
        "python": str(pretender.python),
        "dry_run": True,
        "packages": [{"name": "comfy-cpu-nodes", "version": "0.1.0"}],
        "folder": None,
        "classes": [],
        "disabled": [],
        "missing": {},
    }
    call = pretender.pip_call()
    places = [call[n + 1] for n, word in enumerate(call) if word == "--find-links"]
    assert places == [str(tmp_path / "wheels"), "https://example.invalid/simple"]
    assert call[-1].startswith("comfy-cpu-nodes[onnxruntime,models]==")


def test_errors_of_the_command(pretender: Pretender, cli: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    answer = cli(tmp_path / "nowhere")
    assert answer.code == InputError.exit_code
    assert answer.err.count("error: ") == 1
    pretender.python.unlink()
    answer = cli(pretender.root)
    assert answer.code == UsageError.exit_code
    assert "hint: name it: --python PATH" in answer.err
