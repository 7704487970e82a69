"""How a model gets into the tree, with a source that is made up; the real Hub's protocol is in tests/contract."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.errors import HubError, ModelCorrupt, ModelError
from comfy_cpu_core.fetch import Fetchers, fetch_model
from comfy_cpu_core.fetchers import FetchedFile, FetcherType, FetchProgress, ResolvedModel
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.records import read_record
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.verify import model_state, staging_folder, verify_model

DATA = {"a": b"weights of a", "b": b"weights of b, which are longer"}
SPEC = ModelSpec("x", "made:up", (ModelFile("a", "x/a"), ModelFile("b", "x/b")), "MIT")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Source:
    """A fetcher for made-up files.

    Attributes:
        tells: what it tells of its files before they are fetched.
        own: a folder of its own that its files lie in and must stay in; None to write them into the staging folder.
        at_fetch: called with the file's path and the staging folder before a file is fetched.
    """

    data: dict[str, bytes] = field(default_factory=lambda: dict(DATA))
    revision: str | None = "c1"
    tells: tuple[str, ...] = ("size", "sha256")
    own: Path | None = None
    at_fetch: Callable[[str, Path], None] = lambda path, staging: None
    resolved: list[str | None] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def resolve(self, spec: ModelSpec) -> ResolvedModel:
        self.resolved.append(spec.revision)
        return ResolvedModel(
            self.revision,
            tuple(
                replace(
                    file,
                    size=len(self.data[file.path]) if "size" in self.tells else None,
                    sha256=sha256(self.data[file.path]) if "sha256" in self.tells else None,
                )
                for file in spec.files
            ),
        )

    def fetch(
        self, spec: ModelSpec, resolved: ResolvedModel, file: ModelFile, staging: Path, progress: FetchProgress
    ) -> FetchedFile:
        self.fetched.append(file.path)
        self.at_fetch(file.path, staging)
        path = (self.own or staging) / file.path
        path.write_bytes(self.data[file.path])
        return FetchedFile(path, move=self.own is None)


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    return ModelTree(tmp_path / "models")


def fetchers(source: Source) -> Fetchers:
    return Fetchers({"made": FetcherType("made", lambda: source, online=False)})


def put(tree: ModelTree, target: str, data: bytes) -> Path:
    path = tree.path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_into_an_empty_tree(tree: ModelTree) -> None:
    source = Source()
    report = fetch_model(SPEC, tree, fetchers(source))
    assert {path: tree.path(f"x/{path}").read_bytes() for path in "ab"} == DATA
    assert report.fetched
    assert report.revision == "c1"
    assert report.recorded == ("revision", "x/a", "x/b")
    assert [(file.size, file.sha256, file.action) for file in report.files] == [
        (len(data), sha256(data), "fetched") for data in DATA.values()
    ]
    assert not staging_folder(tree, "x").exists()
    assert report.to_json()["files"][0]["path"] == str(tree.path("x/a"))


def test_hashes_are_known_afterwards(tree: ModelTree) -> None:
    fetch_model(SPEC, tree, fetchers(Source()))
    hashed: list[str] = []
    verify_model(SPEC, tree, progress=lambda target, done, total: hashed.append(target))
    assert hashed == []


def test_a_source_that_owns_its_files_keeps_them(tree: ModelTree, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    told: list[tuple[str, int, int | None]] = []
    fetch_model(SPEC, tree, fetchers(Source(own=own, tells=("size",))), progress=lambda *what: told.append(what))
    assert sorted(path.name for path in own.iterdir()) == ["a", "b"]
    assert {path: tree.path(f"x/{path}").read_bytes() for path in "ab"} == DATA
    assert told[-1] == ("x/b", len(DATA["b"]), len(DATA["b"]))


def test_only_what_is_missing_is_fetched(tree: ModelTree) -> None:
    source = Source()
    fetch_model(SPEC, tree, fetchers(source))
    tree.path("x/b").unlink()
    source.fetched.clear()
    report = fetch_model(SPEC, tree, fetchers(source))
    assert source.fetched == ["b"]
    assert source.resolved == [None, "c1"]
    assert [file.action for file in report.files] == ["kept", "fetched"]
    assert report.revision == "c1"


def test_a_record_outlives_a_new_revision_with_the_same_files(tree: ModelTree) -> None:
    """A package of a new version with the same data: what was kept stays recorded."""
    source = Source()
    fetch_model(SPEC, tree, fetchers(source))
    tree.path("x/b").unlink()
    source.revision = "c2"
    fetch_model(SPEC, tree, fetchers(source))
    record = read_record(tree, "x")
    assert record is not None
    assert record.revision == "c2"
    assert sorted(record.files) == ["x/a", "x/b"]


def test_nothing_is_asked_when_everything_is_there(tree: ModelTree) -> None:
    source = Source()
    fetch_model(SPEC, tree, fetchers(source))
    source.resolved.clear()
    report = fetch_model(SPEC, tree, Fetchers({}))
    assert not report.fetched
    assert report.recorded == ()
    assert source.resolved == []


def test_a_tree_that_cannot_be_written_is_fine_if_everything_is_there(tree: ModelTree) -> None:
    whole = replace(
        SPEC, files=tuple(ModelFile(path, f"x/{path}", len(data), sha256(data)) for path, data in DATA.items())
    )
    for path, data in DATA.items():
        put(tree, f"x/{path}", data)
    (tree.root / ".comfy-cpu").write_text("in the way")
    assert not fetch_model(whole, tree, Fetchers({})).fetched


def test_a_tree_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="Not a directory") as raised:
        fetch_model(SPEC, ModelTree(tmp_path / "file" / "models"), fetchers(Source()))
    assert "--models DIR" in str(raised.value.remedy)


def test_a_wrong_file_in_the_tree_is_left_alone(tree: ModelTree) -> None:
    source = Source()
    fetch_model(SPEC, tree, fetchers(source))
    put(tree, "x/a", b"WEIGHTS OF A")
    with pytest.raises(ModelCorrupt, match=r"model x: .*/x/a has sha256 .* instead of") as raised:
        fetch_model(SPEC, tree, fetchers(source))
    assert raised.value.remedy == "replace it with `comfy-cpu models fetch x --force`"
    assert tree.path("x/a").read_bytes() == b"WEIGHTS OF A"
    fetch_model(SPEC, tree, fetchers(source), force=True)
    assert tree.path("x/a").read_bytes() == DATA["a"]


@pytest.mark.parametrize("tells", [(), ("size",), ("size", "sha256")])
def test_a_file_that_nobody_knew_is_compared_with_the_source(tree: ModelTree, tells: tuple[str, ...]) -> None:
    put(tree, "x/a", DATA["a"])
    notes: list[str] = []
    report = fetch_model(SPEC, tree, fetchers(Source(tells=tells)), note=notes.append)
    assert [file.action for file in report.files] == ["kept", "fetched"]
    assert notes == ["x: x/a was there already and is what made:up has"]
    assert {check.state for check in verify_model(SPEC, tree)} == {"ok"}


@pytest.mark.parametrize("tells", [(), ("size",), ("size", "sha256")])
@pytest.mark.parametrize("mine", [b"my own", b"MY OWN STUFF"], ids=["other size", "same size"])
def test_a_file_of_the_users_own_is_left_alone(tree: ModelTree, tells: tuple[str, ...], mine: bytes) -> None:
    put(tree, "x/a", mine)
    with pytest.raises(ModelCorrupt, match=r"model x: .*/x/a has .*, but made:up has") as raised:
        fetch_model(SPEC, tree, fetchers(Source(tells=tells)))
    assert "keep yours under another name" in str(raised.value.remedy)
    assert tree.path("x/a").read_bytes() == mine


@pytest.mark.parametrize(
    ("pinned", "message"),
    [
        (ModelFile("a", "x/a", size=3), "has 12 bytes instead of 3"),
        (ModelFile("a", "x/a", sha256="0" * 64), f"has sha256 {sha256(DATA['a'])} instead of {'0' * 64}"),
    ],
)
def test_what_was_fetched_is_compared_with_the_spec(tree: ModelTree, pinned: ModelFile, message: str) -> None:
    source = Source(tells=())
    with pytest.raises(ModelCorrupt, match=message):
        fetch_model(replace(SPEC, files=(pinned,)), tree, fetchers(source))
    assert not tree.has("x/a")
    assert [path for path in staging_folder(tree, "x").rglob("*") if path.is_file()] == []
    assert read_record(tree, "x") is None


def test_what_was_fetched_is_compared_with_what_the_source_said(tree: ModelTree) -> None:
    source = Source()
    source.at_fetch = lambda path, staging: source.data.update(a=b"other things")
    with pytest.raises(ModelCorrupt, match=f"instead of {sha256(DATA['a'])}"):
        fetch_model(SPEC, tree, fetchers(source))


@pytest.mark.parametrize("what", ["size", "sha256"])
def test_a_source_that_contradicts_the_spec_is_not_fetched_from(tree: ModelTree, what: str) -> None:
    pinned = ModelFile("a", "x/a", **{what: 3 if what == "size" else "0" * 64})  # type: ignore[arg-type]
    source = Source()
    with pytest.raises(ModelCorrupt, match=f"made:up has another a now: {what}") as raised:
        fetch_model(replace(SPEC, files=(pinned,)), tree, fetchers(source))
    assert source.fetched == []
    assert "--force" not in str(raised.value.remedy)


def test_a_source_that_contradicts_the_record(tree: ModelTree) -> None:
    source = Source()
    fetch_model(SPEC, tree, fetchers(source))
    tree.path("x/a").unlink()
    source.data["a"] = b"other things"
    with pytest.raises(ModelCorrupt, match="has another a now") as raised:
        fetch_model(SPEC, tree, fetchers(source))
    assert "accept it with `comfy-cpu models fetch x --force`" in str(raised.value.remedy)
    assert fetch_model(SPEC, tree, fetchers(source), force=True).files[0].sha256 == sha256(b"other things")
    assert model_state(SPEC, tree) == "verified"


def test_a_plugin_that_moves_on_is_followed(tree: ModelTree) -> None:
    source = Source()
    fetch_model(SPEC, tree, fetchers(source))
    source.data["a"], source.revision = b"a, second edition", "c2"
    second = replace(SPEC, revision="c2")
    assert {check.state for check in verify_model(second, tree)} == {"unrecorded"}
    with pytest.raises(ModelCorrupt, match=r"has sha256 .*, but made:up has"):
        fetch_model(second, tree, fetchers(source))
    report = fetch_model(second, tree, fetchers(source), force=True)
    assert (report.revision, report.recorded) == ("c2", ("x/a", "x/b"))
    assert tree.path("x/a").read_bytes() == b"a, second edition"


def test_too_little_space_is_seen_before_anything_is_fetched(tree: ModelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(path: Path) -> Any:
        return type("Usage", (), {"free": 41})()

    monkeypatch.setattr("comfy_cpu_core.fetch.shutil.disk_usage", usage)
    source = Source()
    with pytest.raises(ModelError, match=r"model x needs 0\.0 MB more in .*/models, where 0\.0 MB are free"):
        fetch_model(SPEC, tree, fetchers(source))
    assert source.fetched == []
    put(tree, ".comfy-cpu/staging/x/part", b"1")  # 42 bytes in all, one of them there
    fetch_model(SPEC, tree, fetchers(source))


def test_a_disk_that_is_full_in_the_middle(tree: ModelTree) -> None:
    source = Source()

    def fill(path: str, staging: Path) -> None:
        (staging / "part").write_bytes(b"weig")
        raise OSError(errno.ENOSPC, "No space left on device", str(staging / "part"))

    source.at_fetch = fill
    with pytest.raises(ModelError, match=r"^model x: no space left in .*/models$") as raised:
        fetch_model(SPEC, tree, fetchers(source))
    assert "goes on where it stopped" in str(raised.value.remedy)
    assert not tree.has("x/a")
    assert (staging_folder(tree, "x") / "part").read_bytes() == b"weig"
    assert model_state(SPEC, tree) == "partial"


def test_cut_off_between_two_files(tree: ModelTree) -> None:
    source = Source()

    def cut(path: str, staging: Path) -> None:
        if path == "b":
            raise HubError("broke off")

    source.at_fetch = cut
    with pytest.raises(HubError):
        fetch_model(SPEC, tree, fetchers(source))
    record = read_record(tree, "x")
    assert record is not None
    assert list(record.files) == ["x/a"]
    source.at_fetch = lambda path, staging: None

    report = fetch_model(SPEC, tree, fetchers(source))

    assert source.resolved == [None, "c1"]
    assert source.fetched == ["a", "b", "b"]
    assert [file.action for file in report.files] == ["kept", "fetched"]


def test_the_lock_is_given_back_after_an_error(tree: ModelTree) -> None:
    source = Source()
    source.at_fetch = lambda path, staging: (_ for _ in ()).throw(HubError("broke off"))
    with pytest.raises(HubError):
        fetch_model(SPEC, tree, fetchers(source))
    source.at_fetch = lambda path, staging: None
    notes: list[str] = []
    fetch_model(SPEC, tree, fetchers(source), note=notes.append)
    assert notes == []


def test_two_at_once(tree: ModelTree) -> None:
    source = Source()
    under_way, go_on = threading.Event(), threading.Event()

    def wait(path: str, staging: Path) -> None:
        under_way.set()
        assert go_on.wait(30)

    source.at_fetch = wait
    first = threading.Thread(target=fetch_model, args=(SPEC, tree, fetchers(source)))
    first.start()
    assert under_way.wait(30)
    notes: list[str] = []

    def note(message: str) -> None:
        notes.append(message)
        go_on.set()

    report = fetch_model(SPEC, tree, fetchers(source), note=note)
    first.join()
    assert notes == ["x: another process is fetching it; waiting until it is done"]
    assert not report.fetched
    assert source.fetched == ["a", "b"]


def test_unknown_scheme(tree: ModelTree) -> None:
    with pytest.raises(ModelError, match="no plugin fetches from 'made'") as raised:
        fetch_model(SPEC, tree, Fetchers({"hf": FetcherType("hf", Source, online=True)}))
    assert "known are: hf" in str(raised.value.remedy)


def test_a_fetcher_is_opened_once(tree: ModelTree) -> None:
    opened: list[Source] = []

    def open_source() -> Source:
        opened.append(Source())
        return opened[-1]

    once = Fetchers({"made": FetcherType("made", open_source, online=False)})
    fetch_model(SPEC, tree, once)
    fetch_model(SPEC, tree, once, force=True)
    assert len(opened) == 1
