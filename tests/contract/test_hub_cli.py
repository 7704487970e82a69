"""``comfy-cpu models`` as a user runs it: the installed command, a plugin, a Hub."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from typing import Any

import pytest
from command_line import CommandLine
from hub_server import HubServer

REPO = "someone/cutout"
WEIGHTS = bytes(range(256)) * 2400
TARGET = "cutout/model.onnx"


def model(**changes: Any) -> dict[str, Any]:
    files = [{"path": "model.onnx", "target": TARGET}]
    return {"id": "cutout", "source": f"hf:{REPO}", "licence": "MIT", "files": files, **changes}


@pytest.fixture
def commit(hub: HubServer) -> str:
    return hub.commit(REPO, {"model.onnx": WEIGHTS}, lfs=["model.onnx"])


def errors(answer: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in answer.stderr.splitlines() if line.startswith("error:")]


def test_list_fetch_verify(comfy_cpu: CommandLine, commit: str) -> None:
    comfy_cpu.knows(model(notice="use it kindly"))

    listed = comfy_cpu("models", "list")
    assert listed.stdout.splitlines()[1].split("\t") == [
        "cutout",
        "missing",
        "unresolved",
        "MIT",
        f"hf:{REPO}",
        "unresolved",
    ]

    fetched = comfy_cpu("models", "fetch", "cutout", "--json")
    assert fetched.returncode == 0
    assert "licence: MIT" in fetched.stderr
    assert "use it kindly" in fetched.stderr
    assert "fetching cutout/model.onnx: 0 B of 614.4 kB" in fetched.stderr
    assert "now recorded in" in fetched.stderr
    (report,) = json.loads(fetched.stdout)["fetched"]
    assert report["revision"] == commit
    assert report["recorded"] == ["revision", TARGET]
    assert (comfy_cpu.tree / TARGET).read_bytes() == WEIGHTS

    listed = comfy_cpu("models", "list", "--json")
    (row,) = json.loads(listed.stdout)["list"]
    assert (row["state"], row["revision"], row["recorded"]) == ("verified", commit, True)
    assert row["files"][0]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()

    verified = comfy_cpu("models", "verify")
    assert (verified.returncode, verified.stdout.splitlines()[1]) == (0, f"cutout\t{TARGET}\tok")

    (comfy_cpu.tree / TARGET).write_bytes(WEIGHTS[:-1] + b"?")
    verified = comfy_cpu("models", "verify", "cutout", "--json")
    assert verified.returncode == 4
    assert json.loads(verified.stdout)["files"][0]["state"] == "wrong hash"
    assert len(errors(verified)) == 1
    assert "models fetch cutout --force" in verified.stderr


@pytest.mark.parametrize(
    ("place", "fault", "said"),
    [
        ("api", {"status": 401}, "(401)"),
        ("api", {"status": 429, "headers": {"Retry-After": "7"}}, "too many"),
        ("cdn", {"die_after": 0}, "broke off in the middle of model.onnx"),
        ("cdn", {"corrupt": True}, "was thrown away"),
    ],
)
def test_faults(
    comfy_cpu: CommandLine, hub: HubServer, commit: str, place: str, fault: dict[str, Any], said: str
) -> None:
    comfy_cpu.knows(model())
    hub.fault(place, **fault)

    answer = comfy_cpu("models", "fetch", "cutout", HF_TOKEN="hf_sesame")

    assert answer.returncode == 4
    (error,) = errors(answer)
    assert said in error
    assert "hint: " in answer.stderr
    assert "hf_sesame" not in answer.stdout + answer.stderr
    assert "Bearer hf_sesame" in {seen.authorization for seen in hub.seen}
    assert not (comfy_cpu.tree / TARGET).exists()


def test_endpoint_that_nobody_listens_at(comfy_cpu: CommandLine) -> None:
    comfy_cpu.knows(model())
    answer = comfy_cpu("models", "fetch", "cutout", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer.returncode == 4
    assert errors(answer) == ["error: cannot reach 127.0.0.1:9: Connection refused"]


def test_offline(comfy_cpu: CommandLine, hub: HubServer, commit: str) -> None:
    comfy_cpu.knows(model())
    answer = comfy_cpu("models", "fetch", "cutout", HF_HUB_OFFLINE="1")
    assert answer.returncode == 4
    assert "HF_HUB_OFFLINE" in errors(answer)[0]
    assert hub.seen == []

    comfy_cpu("models", "fetch", "cutout")
    assert comfy_cpu("models", "fetch", "cutout", HF_HUB_OFFLINE="1").returncode == 0


def test_the_others_are_fetched_when_one_fails(comfy_cpu: CommandLine, commit: str) -> None:
    gone = model(id="gone", source="hf:someone/gone", files=[{"path": "a", "target": "gone/a"}])
    comfy_cpu.knows(gone, model())

    answer = comfy_cpu("models", "fetch", "--all", "--json")

    assert answer.returncode == 4
    assert [report["model"] for report in json.loads(answer.stdout)["fetched"]] == ["cutout"]
    assert "someone/gone" in json.loads(answer.stdout)["errors"][0]["message"]
    assert len(errors(answer)) == 1


def test_two_fetches_at_once_fetch_once(comfy_cpu: CommandLine, hub: HubServer, commit: str) -> None:
    comfy_cpu.knows(model())
    hub.fault("cdn", delay_s=0.03)  # the whole file takes about a second

    with comfy_cpu.start("models", "fetch", "cutout") as first:
        until(lambda: hub.bytes_sent() > 0)
        with comfy_cpu.start("models", "fetch", "cutout") as second:
            said = [process.communicate(timeout=60)[1] for process in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0)
    assert hub.bytes_sent() == len(WEIGHTS)
    assert "another process is fetching it; waiting" in said[1]
    assert "is there and right" in said[1]
    assert (comfy_cpu.tree / TARGET).read_bytes() == WEIGHTS


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_killed_and_started_again(
    comfy_cpu: CommandLine, hub: HubServer, commit: str, blow: signal.Signals, code: int
) -> None:
    comfy_cpu.knows(model())
    hub.fault("cdn", delay_s=0.03)
    with comfy_cpu.start("models", "fetch", "cutout") as process:
        until(lambda: hub.bytes_sent() > 300_000)
        process.send_signal(blow)
        assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert not (comfy_cpu.tree / TARGET).exists()
    hub.heal()
    hub.seen.clear()

    assert comfy_cpu("models", "fetch", "cutout").returncode == 0

    assert (comfy_cpu.tree / TARGET).read_bytes() == WEIGHTS
    (resumed,) = hub.ranges()
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) > 200_000
    assert hub.bytes_sent() < 400_000


def test_a_full_disk(comfy_cpu: CommandLine, hub: HubServer, commit: str) -> None:
    """The largest file that the process may write is smaller than the model."""
    comfy_cpu.knows(model())
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 200 && exec "$0" "$@"', *comfy_cpu.command("models", "fetch", "cutout")],
        env=comfy_cpu.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 4
    assert errors(limited) == [f"error: model cutout: no space left in {comfy_cpu.tree}"]
    assert not (comfy_cpu.tree / TARGET).exists()
    before = hub.bytes_sent()

    assert comfy_cpu("models", "fetch", "cutout").returncode == 0

    assert hub.bytes_sent() - before == len(WEIGHTS) - 200 * 1024
    assert (comfy_cpu.tree / TARGET).read_bytes() == WEIGHTS


def test_usage(comfy_cpu: CommandLine) -> None:
    comfy_cpu.knows(model())
    assert comfy_cpu("models", "fetch").returncode == 2
    unknown = comfy_cpu("models", "fetch", "cutoff")
    assert unknown.returncode == 2
    assert "known are: cutout" in unknown.stderr


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
