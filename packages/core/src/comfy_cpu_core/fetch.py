"""The one way in which a model gets into the model tree.

Lock, look what is there, ask the source, fetch into a staging folder on the same disk, compare size and SHA-256, put
into place, record. Killed at any moment, the tree holds whole files only, and the next fetch goes on from there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from comfy_cpu_core.errors import ModelCorrupt, ModelError
from comfy_cpu_core.fetchers import Fetcher, FetcherType, FetchProgress, ResolvedModel
from comfy_cpu_core.files import copy_file, is_no_space, place_file, sha256_file
from comfy_cpu_core.models import STATE_FOLDER, ModelFile, ModelSpec
from comfy_cpu_core.records import HashCache, Record, pin, read_record, record_path, write_record
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.verify import FileCheck, staging_folder, verify_model

if TYPE_CHECKING:
    from comfy_cpu_core.plugins import Plugins

__all__ = ["FetchReport", "Fetchers", "FileReport", "fetch_model"]


def _no_progress(target: str, done: int, total: int | None) -> None:
    pass


def _no_notes(message: str) -> None:
    pass


class Fetchers:
    """The fetchers of all plugins; each is opened when a source first needs it, and once."""

    def __init__(self, types: Mapping[str, FetcherType]) -> None:
        self._types = dict(types)
        self._open: dict[str, Fetcher] = {}

    @classmethod
    def of(cls, plugins: Plugins) -> Fetchers:
        """What the plugins bring.

        Raises:
            UsageError: two plugins bring the same scheme.
        """
        return cls(plugins.unique("comfy_cpu_fetchers", "scheme", "scheme of models"))

    def for_spec(self, spec: ModelSpec) -> Fetcher:
        """The fetcher for a model's source.

        Raises:
            ModelError: no plugin brings one for that scheme.
        """
        if spec.scheme not in self._types:
            raise ModelError(
                f"model {spec.id} comes from {spec.source!r}, and no plugin fetches from {spec.scheme!r}",
                remedy=f"known are: {', '.join(sorted(self._types))}; see `comfy-cpu plugins list`",
            )
        if spec.scheme not in self._open:
            self._open[spec.scheme] = self._types[spec.scheme].open()
        return self._open[spec.scheme]


@dataclass(frozen=True)
class FileReport:
    """One file after a fetch: ``fetched`` now, or ``kept`` because it was there and right."""

    target: str
    path: Path
    size: int
    sha256: str
    action: Literal["fetched", "kept"]


@dataclass(frozen=True)
class FetchReport:
    """What a fetch did.

    Attributes:
        model, source: the model.
        revision: the commit that its files are from, None where the source has none.
        files: all its files.
        recorded: what its plugin leaves open and this fetch recorded: ``revision``, and targets of files.
        record: the file that it was recorded in.
        seconds: how long it took.
    """

    model: str
    source: str
    revision: str | None
    files: tuple[FileReport, ...]
    recorded: tuple[str, ...]
    record: Path
    seconds: float

    @property
    def fetched(self) -> bool:
        """Whether anything was fetched at all."""
        return any(file.action == "fetched" for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {
            "model": self.model,
            "source": self.source,
            "revision": self.revision,
            "files": [{**vars(file), "path": str(file.path)} for file in self.files],
            "recorded": list(self.recorded),
            "record": str(self.record),
            "seconds": round(self.seconds, 3),
        }


def fetch_model(
    spec: ModelSpec,
    tree: ModelTree,
    fetchers: Fetchers,
    *,
    progress: FetchProgress = _no_progress,
    checking: FetchProgress = _no_progress,
    note: Callable[[str], None] = _no_notes,
    force: bool = False,
) -> FetchReport:
    """Get a model into the tree, unless it is there and right already. Safe to call from several processes.

    A file that is there but not what it should be is never overwritten, unless `force`.

    Args:
        progress: told of the bytes of each file that is fetched.
        checking: told of the bytes of each file that is hashed.
        note: told what the user should know while it runs.
        force: fetch everything again, over what is there, and record anew what the plugin leaves open.

    Raises:
        HubError: the Hub cannot be reached, refuses, or breaks off; what has arrived is kept for the next time.
        ModelCorrupt: a file, there or fetched, is not what it should be.
        ModelError: the source does not have the model, the disk is full, or the tree cannot be written.
    """
    started = time.monotonic()
    steps = _Steps(spec, tree, progress, checking, note, force)
    try:
        if not force and (files := steps.kept()) is not None:
            return steps.report(files, started)
        with _lock(spec, tree, note):
            # Another process may have fetched it while we waited.
            files = None if force else steps.kept()
            if files is None:
                files = steps.fetch(fetchers.for_spec(spec))
            return steps.report(files, started)
    except OSError as error:
        raise _write_error(spec, tree, error) from error


@dataclass
class _Steps:
    spec: ModelSpec
    tree: ModelTree
    progress: FetchProgress
    checking: FetchProgress
    note: Callable[[str], None]
    force: bool
    recorded: tuple[str, ...] = ()

    def kept(self) -> list[FileReport] | None:
        """All files, if they are all there and right; None if something is to be done."""
        checks = self._checks()
        files = [_kept_file(check) for check in checks if check.state == "ok"]
        return files if len(files) == len(checks) else None

    def report(self, files: list[FileReport], started: float) -> FetchReport:
        record = read_record(self.tree, self.spec.id)
        revision = record.revision if record is not None and record.applies_to(self.spec) else self.spec.revision
        return FetchReport(
            model=self.spec.id,
            source=self.spec.source,
            revision=revision,
            files=tuple(files),
            recorded=self.recorded,
            record=record_path(self.tree, self.spec.id),
            seconds=time.monotonic() - started,
        )

    def fetch(self, fetcher: Fetcher) -> list[FileReport]:
        spec, tree = self.spec, self.tree
        checks = {} if self.force else {check.target: check for check in self._checks()}
        before = read_record(tree, spec.id) if not self.force else None
        pinned = pin(spec, before)
        resolved = fetcher.resolve(pinned)
        wanted = [_merge(spec, *three) for three in zip(spec.files, pinned.files, resolved.files, strict=True)]
        to_do = [f for f in wanted if f.target not in checks or checks[f.target].state != "ok"]
        staging = staging_folder(tree, spec.id)
        self._need_space(to_do, staging)
        staging.mkdir(parents=True, exist_ok=True)

        if before is not None and before.applies_to(spec) and before.revision == resolved.revision:
            record = before
        else:
            record = Record(spec.id, spec.source, spec.revision, resolved.revision, fetched_at="")
        files, noted = [], []
        for file, named in zip(wanted, spec.files, strict=True):
            check = checks.get(file.target)
            if check is not None and check.state == "ok":
                files.append(kept := _kept_file(check))
                record = record.with_file(file, size=kept.size, sha256=kept.sha256)
                continue
            done = self._file(fetcher, pinned, resolved, file, staging)
            files.append(done)
            record = record.with_file(file, size=done.size, sha256=done.sha256)
            # After each file: a fetch that is cut off here goes on with the same revision.
            write_record(tree, record)
            if named.size is None or named.sha256 is None:
                noted.append(file.target)
        if spec.revision is None and record.revision is not None:
            noted.insert(0, "revision")
        self.recorded = tuple(noted)
        shutil.rmtree(staging, ignore_errors=True)
        return files

    def _checks(self) -> list[FileCheck]:
        """What is there. A file that is not what it should be ends the fetch: it may be the user's own."""
        checks = verify_model(self.spec, self.tree, progress=self.checking, installed=False)
        for check in checks:
            if check.wrong:
                raise ModelCorrupt(
                    f"model {self.spec.id}: {check.path} {check.describe()}",
                    remedy=f"replace it with `comfy-cpu models fetch {self.spec.id} --force`",
                )
        return checks

    def _file(
        self, fetcher: Fetcher, pinned: ModelSpec, resolved: ResolvedModel, file: ModelFile, staging: Path
    ) -> FileReport:
        target = self.tree.path(file.target)
        there = target.is_file() and not self.force
        if there and file.sha256 is not None:
            # Nobody had a hash to compare it with until the source told one.
            return self._adopt(file, self._hash(file, target), file.sha256)
        if there and file.size not in (None, target.stat().st_size):
            raise self._another(file, f"{target.stat().st_size} bytes", f"{file.size}")
        fetched = fetcher.fetch(pinned, resolved, file, staging, self.progress)
        staged = fetched.path
        if not fetched.move:
            staged = staging / "copy" / file.target
            staged.parent.mkdir(parents=True, exist_ok=True)
            copy_file(fetched.path, staged, lambda done, total: self.progress(file.target, done, total))
        size = staged.stat().st_size
        sha256 = self._hash(file, staged)
        if file.size not in (None, size) or file.sha256 not in (None, sha256):
            staged.unlink()
            wrong = FileCheck(
                file.target,
                "wrong hash" if file.size in (None, size) else "wrong size",
                size=size,
                sha256=sha256,
                expected_size=file.size,
                expected_sha256=file.sha256,
            )
            origin = "" if fetched.move else f" (copied from {fetched.path})"
            raise ModelCorrupt(
                f"model {self.spec.id}: {file.path} from {self.spec.source}{origin} {wrong.describe()}; "
                "it was thrown away",
                remedy="try again; if it stays so, the source has changed or damages the file on its way",
            )
        if there:
            return self._adopt(file, self._hash(file, target), sha256)
        place_file(staged, target)
        HashCache(self.tree, self.spec.id).put(target, sha256)
        return FileReport(file.target, target, size, sha256, "fetched")

    def _adopt(self, file: ModelFile, found: str, expected: str) -> FileReport:
        """Keep a file that was there before anything was known of it, if it is what the source has."""
        path = self.tree.path(file.target)
        if found != expected:
            raise self._another(file, f"sha256 {found}", expected)
        self.note(f"{self.spec.id}: {file.target} was there already and is what {self.spec.source} has")
        HashCache(self.tree, self.spec.id).put(path, found)
        return FileReport(file.target, path, path.stat().st_size, found, "kept")

    def _another(self, file: ModelFile, found: str, expected: str) -> ModelCorrupt:
        return ModelCorrupt(
            f"model {self.spec.id}: {self.tree.path(file.target)} has {found}, but {self.spec.source} has {expected}",
            remedy=f"keep yours under another name, or replace it with `comfy-cpu models fetch {self.spec.id} --force`",
        )

    def _hash(self, file: ModelFile, path: Path) -> str:
        return sha256_file(path, lambda done, total: self.checking(file.target, done, total))

    def _need_space(self, files: list[ModelFile], staging: Path) -> None:
        staged = sum(p.stat().st_size for p in staging.rglob("*") if p.is_file()) if staging.is_dir() else 0
        needed = sum(file.size or 0 for file in files) - staged
        free = shutil.disk_usage(self.tree.root).free
        if needed > free:
            raise ModelError(
                f"model {self.spec.id} needs {_megabytes(needed)} more in {self.tree.root}, where "
                f"{_megabytes(free)} are free",
                remedy="make room, or name a model tree on another disk with --models DIR",
            )


def _kept_file(check: FileCheck) -> FileReport:
    if check.path is None or check.size is None or check.sha256 is None:
        raise AssertionError(f"a file that is ok has a path, a size and a hash: {check}")
    return FileReport(check.target, check.path, check.size, check.sha256, "kept")


def _merge(spec: ModelSpec, named: ModelFile, pinned: ModelFile, source: ModelFile) -> ModelFile:
    """What a file must be: what is pinned, else what the source says. They must not contradict each other.

    Args:
        named: as the plugin has it.
        pinned: the same with what a record adds.
        source: as the source has it now.
    """
    for what in ("size", "sha256"):
        want, has = getattr(pinned, what), getattr(source, what)
        if None not in (want, has) and want != has:
            by_plugin = getattr(named, what) is not None
            raise ModelCorrupt(
                f"model {spec.id}: {spec.source} has another {pinned.path} now: {what} {has} instead of {want}",
                remedy="the source has changed: "
                + (
                    "its plugin must be brought up to date"
                    if by_plugin
                    else f"look at the change, then accept it with `comfy-cpu models fetch {spec.id} --force`"
                ),
            )
    return replace(
        pinned,
        size=source.size if pinned.size is None else pinned.size,
        sha256=source.sha256 if pinned.sha256 is None else pinned.sha256,
    )


@contextmanager
def _lock(spec: ModelSpec, tree: ModelTree, note: Callable[[str], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    folder = tree.root / STATE_FOLDER / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{spec.id}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"{spec.id}: another process is fetching it; waiting until it is done")
        lock.acquire(poll_interval=0.2)
    except NotImplementedError:
        raise ModelError(
            f"model {spec.id}: the file system of {tree.root} has no file locks",
            remedy="fetch into a model tree on another disk with --models DIR, and copy it from there",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _write_error(spec: ModelSpec, tree: ModelTree, error: OSError) -> ModelError:
    if is_no_space(error):
        return ModelError(
            f"model {spec.id}: no space left in {tree.root}",
            remedy="make room and fetch again: it goes on where it stopped; or use another disk with --models DIR",
        )
    where = error.filename or tree.root
    return ModelError(
        f"model {spec.id}: {where}: {error.strerror or type(error).__name__}",
        remedy="name a directory that you may write to with --models DIR or COMFY_CPU_MODELS",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
