"""Models from the Hugging Face Hub: ``hf:OWNER/NAME``.

huggingface_hub knows the Hub: names and revisions, tokens, endpoint, cache, offline mode, redirects, proxies. Only the
bytes are streamed here, with its session and headers. Its own `hf_hub_download` has given up resuming (since 1.31 a
second call begins a file anew), retries for half a minute without a word, and may take another way (Xet) past our
counting; models have gigabytes, and people have bad lines.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.version import Version

from comfy_cpu_core.errors import ComfyCpuError, HubError, ModelCorrupt
from comfy_cpu_core.fetchers import FetchedFile, FetchProgress, ResolvedModel
from comfy_cpu_core.fetchers.hub_errors import BodyTooShort, hub_error
from comfy_cpu_core.models import ModelFile, ModelSpec

__all__ = ["HubFetcher"]

_COMMIT = re.compile(r"[0-9a-f]{40}")

#: How often a connection that broke off after it had brought something is opened again within one fetch.
_RECONNECTS = 3


class HubFetcher:
    """Fetches from the Hub that huggingface_hub is set up for (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_CACHE).

    Args:
        endpoint: another Hub than HF_ENDPOINT's.
        token: another token than HF_TOKEN's or the one of ``hf auth login``.
        pause_s: seconds before a connection that broke off is opened again.

    Raises:
        HubError: huggingface_hub is too old.
    """

    def __init__(self, *, endpoint: str | None = None, token: str | None = None, pause_s: float = 1.0) -> None:
        from huggingface_hub import HfApi

        _check_library()
        self._api = HfApi(endpoint=endpoint, token=token, library_name="comfy-cpu")
        self._token = token
        self._pause_s = pause_s
        self._git_oids: dict[tuple[str, str], str] = {}

    def resolve(self, spec: ModelSpec) -> ResolvedModel:
        """The commit, and each file's size and, where it is kept in LFS, its SHA-256.

        A commit that is in the local cache as a whole is not asked for; in offline mode a branch is neither.

        Raises:
            HubError: the Hub cannot be reached, refuses, or lacks the repository, the revision or a file.
        """
        from huggingface_hub import constants

        repo = _repo(spec)
        what = f"revision {spec.revision or constants.DEFAULT_REVISION}"
        try:
            cached = self._cached(spec)
            if cached is not None:
                return cached
            info = self._api.model_info(
                repo, revision=spec.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
            commit = info.sha
            siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        except Exception as error:
            raise self._error(error, repo, what) from None
        if not isinstance(commit, str) or (_is_commit(spec.revision) and commit != spec.revision):
            raise HubError(
                f"{repo}: asked for {what}, the Hub answered with {commit}", remedy="check HF_ENDPOINT, then try again"
            )
        files = []
        for file in spec.files:
            sibling = siblings.get(file.path)
            if sibling is None:
                raise HubError(
                    f"{repo} has no file {file.path} at revision {commit}",
                    remedy="the source has changed: its plugin must be brought up to date",
                    status=404,
                )
            if sibling.lfs is None and sibling.blob_id:
                self._git_oids[commit, file.path] = sibling.blob_id
            sha256 = sibling.lfs.sha256 if sibling.lfs is not None else None
            size = sibling.lfs.size if sibling.lfs is not None else sibling.size
            files.append(replace(file, size=size, sha256=sha256))
        return ResolvedModel(commit, tuple(files))

    def fetch(
        self, spec: ModelSpec, resolved: ResolvedModel, file: ModelFile, staging: Path, progress: FetchProgress
    ) -> FetchedFile:
        """Get one file, out of the local cache or over the network.

        Raises:
            HubError: the Hub cannot be reached, refuses, or breaks off; what has arrived stays in `staging`.
            ModelCorrupt: the file is not the one that the commit names.
        """
        from huggingface_hub import try_to_load_from_cache

        repo, commit = _repo(spec), resolved.revision or "main"
        cached = try_to_load_from_cache(repo, file.path, revision=commit)
        if isinstance(cached, str) and file.size in (None, Path(cached).stat().st_size):
            return FetchedFile(Path(cached).resolve(), move=False)
        folder = staging / f"hf-{commit}"
        for other in staging.glob("hf-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        part = folder.joinpath(*PurePosixPath(file.path).parts)
        part.parent.mkdir(parents=True, exist_ok=True)
        self._download(repo, commit, file, part, progress)
        self._check_git_oid(spec, commit, file, part)
        return FetchedFile(part)

    def _download(self, repo: str, commit: str, file: ModelFile, part: Path, progress: FetchProgress) -> None:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(repo, file.path, revision=commit, endpoint=self._api.endpoint)
        reconnects = 0
        while True:
            have = part.stat().st_size if part.exists() else 0
            if have and (file.size is None or have > file.size):
                # Nobody can say whether this is a beginning of the file.
                part.unlink()
                have = 0
            progress(file.target, have, file.size)
            if have and have == file.size:
                return
            try:
                self._stream(url, file, part, have, progress)
                return
            except OSError as error:
                # The library's HTTP errors are OSErrors too; those of our own disk have no response.
                if getattr(error, "response", None) is None and error.errno is not None:
                    raise
                if getattr(getattr(error, "response", None), "status_code", None) == 416:
                    part.unlink()
                    raise ModelCorrupt(
                        f"{repo}: the Hub has only {have} of the {file.size} bytes that {file.path} should have",
                        remedy="try again; if it stays so, the file is damaged on the Hub or on its way",
                    ) from None
                raise self._error(error, repo, file.path, kept=have) from None
            except ModelCorrupt:
                part.unlink(missing_ok=True)
                raise
            except ComfyCpuError:
                # Raised by whoever watches the progress, to end it.
                raise
            except Exception as error:
                got = part.stat().st_size if part.exists() else 0
                if got > have and reconnects < _RECONNECTS and _broke_off(error):
                    reconnects += 1
                    time.sleep(self._pause_s)
                    continue
                raise self._error(error, repo, file.path, kept=got) from None

    def _stream(self, url: str, file: ModelFile, part: Path, have: int, progress: FetchProgress) -> None:
        """Append what is missing to `part`, which has `have` bytes.

        Raises:
            BodyTooShort: the answer ended early, and properly.
            ModelCorrupt: it cannot be a part of the file.
            Exception: whatever huggingface_hub and its HTTP library raise.
        """
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        # Compressed, the body could neither be counted nor resumed.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        headers = build_hf_headers(token=self._token, library_name="comfy-cpu", headers=headers)
        with get_session().stream(
            "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
        ) as response:
            if response.status_code >= 400:
                response.read()
                hf_raise_for_status(response)
            resumed = response.status_code == 206
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise ModelCorrupt(
                    f"the Hub sent another part of {file.path} than the one asked for", remedy="try again"
                )
            done = have if resumed else 0
            with part.open("ab" if resumed else "wb") as out:
                for chunk in response.iter_bytes():
                    done += len(chunk)
                    if file.size is not None and done > file.size:
                        raise ModelCorrupt(
                            f"the Hub sends more than the {file.size} bytes that {file.path} should have",
                            remedy="try again; if it stays so, the source has changed or damages the file on its way",
                        )
                    out.write(chunk)
                    progress(file.target, done, file.size)
        if file.size is not None and done < file.size:
            raise BodyTooShort

    def _check_git_oid(self, spec: ModelSpec, commit: str, file: ModelFile, part: Path) -> None:
        """Compare a file that is kept in git itself, and so has no SHA-256 on the Hub, with its git object id."""
        oid = self._git_oids.get((commit, file.path))
        if oid is None:
            return
        digest = hashlib.sha1(f"blob {part.stat().st_size}\0".encode(), usedforsecurity=False)
        with part.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != oid:
            part.unlink()
            raise ModelCorrupt(
                f"model {spec.id}: {file.path} from {spec.source} has git object id {digest.hexdigest()} instead of "
                f"{oid}; it was thrown away",
                remedy="try again; if it stays so, the Hub or something on the way damages the file",
            )

    def _cached(self, spec: ModelSpec) -> ResolvedModel | None:
        """The model as the local cache has it, where the Hub need not or must not be asked; else None."""
        from huggingface_hub import constants, try_to_load_from_cache

        if not _is_commit(spec.revision) and not constants.HF_HUB_OFFLINE:
            return None
        repo = _repo(spec)
        files, commits = [], set()
        for file in spec.files:
            found = try_to_load_from_cache(repo, file.path, revision=spec.revision)
            if not isinstance(found, str):
                return None
            path = Path(found)
            files.append(replace(file, size=path.stat().st_size, sha256=None))
            # The cache has it as snapshots/COMMIT/FILE.
            commits.add(path.parents[len(PurePosixPath(file.path).parts) - 1].name)
        return ResolvedModel(commits.pop(), tuple(files)) if len(commits) == 1 else None

    def _error(self, error: Exception, repo: str, what: str, *, kept: int | None = None) -> HubError:
        from huggingface_hub import get_token

        has_token = self._token is not None or get_token() is not None
        return hub_error(error, repo=repo, what=what, endpoint=self._api.endpoint, has_token=has_token, kept=kept)


def _check_library() -> None:
    """Nodes inside a ComfyUI need no Hub, and transformers 4 keeps huggingface_hub below 1.0 there; fetching needs it."""
    from huggingface_hub import __version__

    if Version(__version__) < Version("1.0"):
        raise HubError(
            f"huggingface_hub {__version__} is too old to fetch models with: 1.0 is needed",
            remedy="run comfy-cpu from an environment of its own, and name this model tree with --models DIR",
        )


def _repo(spec: ModelSpec) -> str:
    return spec.source.partition(":")[2]


def _is_commit(revision: Any) -> bool:
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def _broke_off(error: Exception) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"BodyTooShort", "NetworkError", "RemoteProtocolError", "TimeoutException"})
