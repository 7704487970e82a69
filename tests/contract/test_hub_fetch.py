"""The real huggingface_hub against a local server that speaks the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

from comfy_cpu_core.errors import HubError, ModelCorrupt, ModelError
from comfy_cpu_core.fetch import Fetchers, FetchReport, fetch_model
from comfy_cpu_core.fetchers import FetcherType
from comfy_cpu_core.fetchers.hub import HubFetcher
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.records import read_record
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.verify import model_state, verify_model

REPO = "someone/cutout"
WEIGHTS = bytes(range(256)) * 2400  # 614,400 bytes
CONFIG = b'{"size": 1024}\n'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spec(**changes: Any) -> ModelSpec:
    """The model, with nothing resolved."""
    files = (
        ModelFile("onnx/model.onnx", "cutout/model.onnx"),
        ModelFile("config.json", "cutout/config.json"),
    )
    return replace(ModelSpec("cutout", f"hf:{REPO}", files, "MIT"), **changes)


def resolved(commit: str, weights: bytes = WEIGHTS) -> ModelSpec:
    """The model, with everything resolved."""
    files = (
        ModelFile("onnx/model.onnx", "cutout/model.onnx", len(weights), sha256(weights)),
        ModelFile("config.json", "cutout/config.json", len(CONFIG), sha256(CONFIG)),
    )
    return spec(revision=commit, files=files)


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    return ModelTree(tmp_path / "models")


@pytest.fixture
def commit(hub: HubServer) -> str:
    return publish(hub)


def publish(hub: HubServer, weights: bytes = WEIGHTS) -> str:
    files = {"onnx/model.onnx": weights, "config.json": CONFIG, "README.md": b"# Cutout\n"}
    return hub.commit(REPO, files, lfs=["onnx/model.onnx"])


@pytest.fixture
def fetch(hub: HubServer, tree: ModelTree) -> Callable[..., FetchReport]:
    def call(model: ModelSpec, *, token: str | None = None, endpoint: str | None = None, **options: Any) -> FetchReport:
        def open_hub() -> HubFetcher:
            return HubFetcher(endpoint=endpoint or hub.url, token=token, pause_s=0)

        return fetch_model(model, tree, Fetchers({"hf": FetcherType("hf", open_hub, online=True)}), **options)

    return call


def staged(tree: ModelTree) -> list[Path]:
    return [path for path in tree.root.glob(".comfy-cpu/staging/**/*") if path.is_file()]


# What goes well


def test_pinned_revision(hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]) -> None:
    publish(hub, weights=b"a later commit")

    report = fetch(resolved(commit))

    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS
    assert tree.path("cutout/config.json").read_bytes() == CONFIG
    assert report.revision == commit
    assert report.recorded == ()
    assert [file.action for file in report.files] == ["fetched", "fetched"]
    assert {check.state for check in verify_model(resolved(commit), tree, full=True)} == {"ok"}
    assert not staged(tree)
    # One question, one redirect, two bodies: nothing is asked twice.
    assert [(seen.method, seen.place) for seen in hub.seen] == [
        ("GET", "api"),
        ("GET", "resolve"),
        ("GET", "cdn"),
        ("GET", "resolve"),
    ]
    assert hub.bytes_sent() == len(WEIGHTS) + len(CONFIG)
    # Compressed, a body could neither be counted nor resumed.
    assert {seen.accept_encoding for seen in hub.seen if seen.sent} == {"identity"}


def test_what_is_there_and_right_is_not_asked_for(
    hub: HubServer, commit: str, fetch: Callable[..., FetchReport]
) -> None:
    fetch(resolved(commit))
    asked = len(hub.seen)

    report = fetch(resolved(commit))

    assert not report.fetched
    assert report.revision == commit
    assert len(hub.seen) == asked


def test_first_fetch_records_what_is_unresolved(
    commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    assert model_state(spec(), tree) == "missing"

    report = fetch(spec())

    assert report.recorded == ("revision", "cutout/model.onnx", "cutout/config.json")
    record = json.loads(report.record.read_text())
    assert record["source"] == f"hf:{REPO}"
    assert record["revision"] == commit
    assert record["asked"] is None
    assert record["files"]["cutout/model.onnx"] == {
        "path": "onnx/model.onnx",
        "size": len(WEIGHTS),
        "sha256": sha256(WEIGHTS),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["fetched_at"])
    assert model_state(spec(), tree) == "verified"


def test_later_fetch_keeps_to_the_record(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    fetch(spec())
    publish(hub, weights=b"a later commit")
    tree.path("cutout/model.onnx").unlink()

    report = fetch(spec())

    assert report.revision == commit
    assert [file.action for file in report.files] == ["fetched", "kept"]
    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS


def test_force_takes_what_the_source_has_now(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    fetch(spec())
    later = publish(hub, weights=b"a later commit")

    report = fetch(spec(), force=True)

    assert report.revision == later
    assert tree.path("cutout/model.onnx").read_bytes() == b"a later commit"
    record = read_record(tree, "cutout")
    assert record is not None
    assert record.revision == later
    assert record.files["cutout/model.onnx"].sha256 == sha256(b"a later commit")


def test_a_change_at_the_source_is_seen(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    """The plugin pins a hash and no revision; the branch moves on."""
    fixed = replace(resolved(commit), revision=None)
    publish(hub, weights=b"a later commit")

    with pytest.raises(ModelCorrupt, match=r"has another onnx/model\.onnx now: size 14 instead of 614400") as raised:
        fetch(fixed)

    assert raised.value.remedy is not None
    assert "plugin must be brought up to date" in raised.value.remedy
    assert hub.bytes_sent() == 0
    assert not tree.has("cutout/model.onnx")


def test_a_recorded_commit_that_is_gone(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    fetch(spec())
    publish(hub, weights=b"a later commit")
    hub.forget(REPO, commit)
    tree.path("cutout/model.onnx").unlink()

    with pytest.raises(HubError, match=f"someone/cutout has no revision {commit} on 127.0.0.1:{hub.port} \\(404\\)"):
        fetch(spec())


def test_a_file_that_was_there_before_is_recognised(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    tree.path("cutout").mkdir(parents=True)
    tree.path("cutout/model.onnx").write_bytes(WEIGHTS)
    notes: list[str] = []

    report = fetch(spec(), note=notes.append)

    assert [file.action for file in report.files] == ["kept", "fetched"]
    assert hub.bytes_sent() == len(CONFIG)
    assert "was there already" in notes[0]
    assert {check.state for check in verify_model(spec(), tree)} == {"ok"}


def test_a_file_of_the_users_own_is_not_overwritten(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    tree.path("cutout").mkdir(parents=True)
    tree.path("cutout/model.onnx").write_bytes(b"my own training")

    with pytest.raises(ModelCorrupt, match=r"has sha256 .* has [0-9a-f]{64}$"):
        fetch(spec())
    assert tree.path("cutout/model.onnx").read_bytes() == b"my own training"

    fetch(spec(), force=True)
    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS


def test_progress_counts_bytes(commit: str, fetch: Callable[..., FetchReport]) -> None:
    told: list[tuple[str, int, int | None]] = []

    fetch(spec(), progress=lambda *what: told.append(what))

    weights = [(done, total) for target, done, total in told if target == "cutout/model.onnx"]
    assert weights[0] == (0, len(WEIGHTS))
    assert weights[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert weights == sorted(weights)


# Breaking off and going on


@pytest.mark.parametrize("fault", [{"die_after": 200_000}, {"truncate_to": 200_000}], ids=["reset", "closed"])
def test_a_connection_that_breaks_once_is_opened_again(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport], fault: dict[str, int]
) -> None:
    hub.fault("cdn", times=1, **fault)

    fetch(spec())

    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS
    (resumed,) = hub.ranges()
    assert 0 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= 200_000


def test_a_fetch_that_broke_off_goes_on_where_it_stopped(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    hub.fault("cdn", truncate_to=100_000)
    with pytest.raises(HubError, match=r"broke off in the middle of onnx/model.onnx .*, after 400,000 bytes") as raised:
        fetch(spec())
    assert raised.value.remedy == "what has arrived is kept, and the next fetch goes on there"
    assert model_state(spec(), tree) == "partial"
    assert not tree.has("cutout/model.onnx")
    hub.heal()
    before = hub.bytes_sent()
    told: list[tuple[str, int, int | None]] = []

    fetch(spec(), progress=lambda *what: told.append(what))

    assert hub.ranges()[-1] == "bytes=400000-"
    assert hub.bytes_sent() - before == len(WEIGHTS) - 400_000 + len(CONFIG)
    assert told[0] == ("cutout/model.onnx", 400_000, len(WEIGHTS))
    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS
    assert not staged(tree)


def test_the_beginning_of_another_commit_is_not_taken_up(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    hub.fault("cdn", truncate_to=100_000)
    with pytest.raises(HubError):
        fetch(spec())
    hub.heal()
    hub.seen.clear()
    later = publish(hub, weights=WEIGHTS[::-1])

    lying: set[str] = set()

    def look(target: str, done: int, total: int | None) -> None:
        lying.update(path.name for path in tree.root.glob(".comfy-cpu/staging/cutout/*"))

    assert fetch(spec(), progress=look).revision == later

    assert hub.ranges() == []
    assert lying == {f"hf-{later}"}
    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS[::-1]


def test_a_server_that_ignores_ranges(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    hub.fault("cdn", times=4, truncate_to=100_000)
    with pytest.raises(HubError):
        fetch(spec())
    hub.fault("cdn", ignore_range=True)

    fetch(spec())

    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS


def test_a_file_that_was_complete_but_not_in_place(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    """Killed between the last byte and the move."""
    part = tree.root / ".comfy-cpu/staging/cutout" / f"hf-{commit}" / "onnx/model.onnx"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS)

    fetch(spec())

    assert hub.bytes_sent() == len(CONFIG)
    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS


def test_a_fetch_that_broke_off_between_files_goes_on_with_the_same_commit(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    turned = spec(files=spec().files[::-1])
    hub.fault("cdn", truncate_to=0)
    with pytest.raises(HubError):
        fetch(turned)
    assert tree.has("cutout/config.json")
    hub.heal()
    publish(hub, weights=b"a later commit")

    assert fetch(turned).revision == commit

    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS


# Wrong bytes


def test_wrong_bytes_are_thrown_away(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    hub.fault("cdn", corrupt=True)

    with pytest.raises(ModelCorrupt, match=f"has sha256 [0-9a-f]{{64}} instead of {sha256(WEIGHTS)}"):
        fetch(spec())

    assert not tree.has("cutout/model.onnx")
    assert staged(tree) == []
    hub.heal()
    fetch(spec())
    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS


def test_wrong_bytes_of_a_file_without_a_sha256(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    """config.json is kept in git itself: the Hub states a git object id, no SHA-256."""
    hub.fault("resolve", corrupt=True)

    with pytest.raises(ModelCorrupt, match=r"config\.json from hf:someone/cutout has git object id"):
        fetch(spec(files=spec().files[1:]))

    assert not tree.has("cutout/config.json")
    assert staged(tree) == []


def test_a_body_that_is_too_long(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    hub.fault("cdn", too_long=1000)
    with pytest.raises(ModelCorrupt, match="sends more than the 614400 bytes"):
        fetch(spec())
    assert staged(tree) == []


def test_a_file_that_is_too_short_on_the_server(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    """The Content-Length is right for what is sent, but it is not the whole file."""
    hub.fault("cdn", short_to=100_000)
    with pytest.raises(ModelCorrupt, match="has only 100000 of the 614400 bytes"):
        fetch(spec())
    assert staged(tree) == []


# Errors, one clear line each

GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted"}


@pytest.mark.parametrize(
    ("fault", "status", "message", "remedy"),
    [
        ({"status": 401}, 401, r"^127\.0\.0\.1:\d+ does not let us read someone/cutout \(401\)$", "set HF_TOKEN"),
        ({"status": 403}, 403, r"forbids to read someone/cutout \(403\)$", "may read it"),
        ({"status": 401, "headers": GATED}, 401, "is gated", "accept the licence on https://127.0.0.1:"),
        ({"status": 403, "headers": GATED}, 403, "is gated", "accept the licence on https://127.0.0.1:"),
        ({"status": 404}, 404, "there is no repository someone/cutout", "check its name"),
        ({"status": 404, "headers": {"X-Error-Code": "RevisionNotFound"}}, 404, r"\(404\)$", "/commits/main"),
        ({"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, 404, r"\(404\)$", "/tree/main"),
        ({"status": 429, "headers": {"Retry-After": "120"}}, 429, r"\(429\)$", "try again in 120 s; with HF_TOKEN"),
        ({"status": 429, "headers": {"RateLimit": '"api";r=0;t=55'}}, 429, r"\(429\)$", "try again in 55 s"),
        ({"status": 429}, 429, r"\(429\)$", "try again later"),
        ({"status": 500}, 500, r"has a problem of its own \(500\)$", "try again later"),
        ({"status": 503}, 503, r"has a problem of its own \(503\)$", "try again later"),
        ({"status": 418}, 418, "answered 418 for someone/cutout", "try again"),
    ],
)
@pytest.mark.parametrize("place", ["api", "resolve", "cdn"])
def test_statuses(
    hub: HubServer,
    commit: str,
    tree: ModelTree,
    fetch: Callable[..., FetchReport],
    place: str,
    fault: dict[str, Any],
    status: int,
    message: str,
    remedy: str,
) -> None:
    hub.fault(place, **fault)

    with pytest.raises(HubError, match=message) as raised:
        fetch(spec())

    assert raised.value.status == status
    assert raised.value.remedy is not None
    assert remedy in raised.value.remedy
    assert "\n" not in str(raised.value) + raised.value.remedy
    assert not tree.has("cutout/model.onnx")
    # No hidden retries: what failed was asked once.
    assert len([seen for seen in hub.seen if seen.place == place]) == 1


def test_unknown_repository_revision_and_file(hub: HubServer, commit: str, fetch: Callable[..., FetchReport]) -> None:
    with pytest.raises(HubError, match=r"there is no repository someone/else .*\(404\)"):
        fetch(spec(source="hf:someone/else"))
    with pytest.raises(HubError, match=r"someone/cutout has no revision v9 .*\(404\)"):
        fetch(spec(revision="v9"))
    with pytest.raises(HubError, match=rf"someone/cutout has no file other\.onnx at revision {commit}"):
        fetch(spec(files=(ModelFile("other.onnx", "cutout/model.onnx"),)))
    with pytest.raises(HubError, match="is not the name of a repository"):
        fetch(spec(source="hf:some one/cut/out"))


def test_connection_refused(hub: HubServer, fetch: Callable[..., FetchReport]) -> None:
    with pytest.raises(HubError, match=r"^cannot reach 127\.0\.0\.1:9: .*[Rr]efused"):
        fetch(spec(), endpoint="http://user:secret@127.0.0.1:9")


def test_unknown_host(hub: HubServer, fetch: Callable[..., FetchReport]) -> None:
    with pytest.raises(HubError, match=r"^cannot reach hub\.invalid: "):
        fetch(spec(), endpoint="http://hub.invalid")


def test_tls_error(hub: HubServer, fetch: Callable[..., FetchReport]) -> None:
    """The server speaks no TLS at all."""
    with pytest.raises(HubError, match=r"no secure connection to 127\.0\.0\.1") as raised:
        fetch(spec(), endpoint=hub.url.replace("http:", "https:"))
    assert "SSL_CERT_FILE" in str(raised.value.remedy)


def test_endpoint_that_is_no_url(hub: HubServer, fetch: Callable[..., FetchReport]) -> None:
    with pytest.raises(HubError, match="is not a URL of a Hub"):
        fetch(spec(), endpoint="localhost/hub")


def test_something_else_answers(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    """A captive portal says 200 to everything."""
    portal = hub.fault("api", html=True)
    with pytest.raises(HubError, match="does not answer as a Hub does"):
        fetch(spec())
    portal.place = "resolve"
    with pytest.raises(ModelError):
        fetch(spec())
    assert not tree.has("cutout/model.onnx")


def test_slow_answer(
    hub: HubServer, commit: str, fetch: Callable[..., FetchReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.fault("cdn", delay_s=1.5)
    with pytest.raises(HubError, match="did not answer in time") as raised:
        fetch(spec())
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in str(raised.value.remedy)


# Tokens


def test_token_is_sent_to_the_hub_and_to_nobody_else(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    hub.tokens = {"hf_sesame"}

    fetch(spec(), token="hf_sesame")

    assert {seen.authorization for seen in hub.seen if seen.place != "cdn"} == {"Bearer hf_sesame"}
    assert [seen.authorization for seen in hub.seen if seen.place == "cdn"] == [None]


@pytest.mark.parametrize("token", ["hf_wrong", "hf_wr\tong\x07", "hf_wröng"])
def test_token_is_never_shown(hub: HubServer, commit: str, fetch: Callable[..., FetchReport], token: str) -> None:
    hub.tokens = {"hf_sesame"}
    with pytest.raises(HubError) as raised:
        fetch(spec(), token=token)
    shown = f"{raised.value} {raised.value.remedy} " + "".join(traceback.format_exception(raised.value))
    assert "hf_wr" not in shown
    assert "HF_TOKEN" in str(raised.value.remedy)


# Offline, and the user's cache


def fill_cache(commit: str, weights: bytes = WEIGHTS) -> None:
    from huggingface_hub import constants

    repo = Path(constants.HF_HUB_CACHE, "models--someone--cutout")
    snapshot = repo / "snapshots" / commit
    (snapshot / "onnx").mkdir(parents=True)
    (repo / "blobs").mkdir()
    blob = repo / "blobs" / sha256(weights)
    blob.write_bytes(weights)
    (snapshot / "onnx/model.onnx").symlink_to(os.path.relpath(blob, snapshot / "onnx"))
    (snapshot / "config.json").write_bytes(CONFIG)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commit)


def test_offline_without_the_file(
    hub: HubServer, commit: str, fetch: Callable[..., FetchReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="not on this machine, and HF_HUB_OFFLINE") as raised:
        fetch(spec())
    assert "unset HF_HUB_OFFLINE" in str(raised.value.remedy)
    assert hub.seen == []


@pytest.mark.parametrize("pinned", [True, False])
def test_offline_with_the_file_in_the_cache(
    hub: HubServer,
    commit: str,
    tree: ModelTree,
    fetch: Callable[..., FetchReport],
    monkeypatch: pytest.MonkeyPatch,
    pinned: bool,
) -> None:
    from huggingface_hub import constants

    fill_cache(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    report = fetch(resolved(commit) if pinned else spec())

    assert report.revision == commit
    assert tree.path("cutout/model.onnx").read_bytes() == WEIGHTS
    assert not tree.path("cutout/model.onnx").is_symlink()
    assert Path(constants.HF_HUB_CACHE, "models--someone--cutout/blobs", sha256(WEIGHTS)).is_file()
    assert hub.seen == []


def test_a_pinned_commit_in_the_cache_needs_no_network(
    hub: HubServer, commit: str, fetch: Callable[..., FetchReport]
) -> None:
    fill_cache(commit)
    fetch(resolved(commit))
    assert hub.seen == []


def test_a_damaged_cache_is_not_believed(
    hub: HubServer, commit: str, tree: ModelTree, fetch: Callable[..., FetchReport]
) -> None:
    fill_cache(commit, weights=WEIGHTS[:-1] + b"?")
    with pytest.raises(ModelCorrupt, match=r"copied from .*hf-cache"):
        fetch(resolved(commit))
    assert not tree.has("cutout/model.onnx")
