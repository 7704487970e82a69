"""Our worker as a target: a real ``comfy-cpu serve``, and the same workflow through all targets."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_nodes import one_node
from PIL import Image
from worker_server import WorkerServer

from comfy_cpu_client import Client, Run
from comfy_cpu_client.errors import TargetRefused
from comfy_cpu_core.errors import TargetError, WorkflowInvalid
from comfy_cpu_core.results import Output, Result

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "astronaut.jpg"
WORKFLOW = ROOT / "examples" / "workflows" / "background_removal.json"
TOKEN = "the-token"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, stand_in_models: Path) -> Iterator[WorkerServer]:
    folder = tmp_path_factory.mktemp("serve")
    shutil.copytree(stand_in_models, folder / "models")
    with WorkerServer(folder, environment={"COMFY_CPU_TOKEN": TOKEN}) as worker:
        yield worker


@pytest.fixture
def url(worker: WorkerServer) -> str:
    return f"http://127.0.0.1:{worker.client.port}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(f"worker+{url}", token=TOKEN, price_per_second=2.0) as client:
        yield client


def same(output: Output) -> tuple[Any, ...]:
    """An output without what the clock or chance put into its name."""
    name = "" if output.folder == "temp" or output.class_type == "SaveImageNoMetadata" else output.filename
    return output.node_id, output.class_type, output.kind, output.media_type, output.folder, name, output.data


@pytest.fixture(scope="module")
def expected(stand_in_models: Path) -> Result:
    with Client("embedded", models=stand_in_models) as client:
        result = client.run(WORKFLOW, inputs=PHOTO)
    assert result.ok
    return result


@pytest.mark.parametrize(
    ("prefix", "options"),
    [("worker+", {"sync": False}), ("worker+", {"sync": True}), ("", {}), ("runpod", {})],
    ids=["run", "runsync", "a bare URL", "as if it were RunPod"],
)
def test_the_same_through_every_target(url: str, expected: Result, prefix: str, options: dict[str, Any]) -> None:
    target = f"{prefix}{url}"
    given = {"token": TOKEN, **options}
    if prefix == "runpod":
        target, given = "runpod://any-id", {"api_key": TOKEN, "base_url": f"{url}/v2"}
    with Client(target, **given) as client:
        result = client.run(WORKFLOW, inputs=PHOTO)
    assert result.status == "completed", result.errors
    assert [same(output) for output in result.outputs] == [same(output) for output in expected.outputs]
    assert result.changes == expected.changes
    assert {timing.node_id for timing in result.timings} <= {timing.node_id for timing in expected.timings}
    assert result.stand_in
    assert result.execution_seconds > 0


def test_the_sdks_own_server(expected: Result, clean_environment: dict[str, str], stand_in_models: Path) -> None:
    """It has no /health, and a job runs only while somebody waits for it: with ``runsync`` it can be driven."""
    pytest.importorskip("runpod", reason="the RunPod SDK is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "comfy_cpu_worker.runpod", *arguments],
        env={**clean_environment, "COMFY_CPU_MODELS": str(stand_in_models)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        with Client(f"worker+http://127.0.0.1:{port}/", sync=True) as client:
            result = client.run(WORKFLOW, inputs=PHOTO)
            assert [same(output) for output in result.outputs] == [same(output) for output in expected.outputs]
            assert client.run({"1": {"class_type": "Nothing", "inputs": {}}}).status == "failed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nothing listens")


def test_pictures_and_arrays_and_files_are_one(client: Client, expected: Result) -> None:
    np = pytest.importorskip("numpy")
    with Image.open(PHOTO) as picture:
        picture.load()
    for value in (picture, np.asarray(picture), np.asarray(picture)[None].astype("float32") / 255):
        result = client.run(WORKFLOW, inputs=value)
        assert [output.sha256 for output in result.images] == [output.sha256 for output in expected.images]


def test_progress_cancel_and_deadline(client: Client) -> None:
    run = client.submit(one_node("TestSteps", steps=4, seconds=0.3))
    events = list(run.stream())
    assert "step" in {event.kind for event in events}
    assert run.progress == events[-1]
    assert run.wait(60).ok
    run = client.submit(one_node("TestSleep", seconds=60))
    while run.status() == "queued":
        time.sleep(0.01)
    run.cancel()
    assert run.wait(30).status == "cancelled"
    assert client.run(one_node("TestSleep", seconds=60), timeout_s=1).status == "timed_out"


def test_times_and_cost(client: Client) -> None:
    result = client.run(one_node("TestSleep", seconds=0.5))
    assert 0.4 < result.execution_seconds < 20
    assert result.estimated_cost == pytest.approx(2 * result.execution_seconds)


def test_a_failure_has_its_node_and_its_traceback(client: Client) -> None:
    result = client.run(one_node("TestRaise", text="it broke"))
    failure = result.errors[0]
    assert (result.status, failure.code, failure.node_id, failure.class_type) == (
        "failed",
        "node_failed",
        "1",
        "TestRaise",
    )
    assert "it broke" in failure.message
    assert "Traceback" in failure.details


def test_a_block_is_blocked(client: Client) -> None:
    result = client.run(one_node("TestRaise", block=True, text="Content blocked by Test: no"))
    assert result.status == "blocked"
    assert result.errors[0].node_id == "1"


def test_a_workflow_that_does_not_validate(client: Client, stand_in_models: Path) -> None:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    with Client("embedded", models=stand_in_models) as embedded, pytest.raises(WorkflowInvalid) as caught:
        embedded.run(prompt)
    result = client.run(prompt)
    assert result.status == "failed"
    assert result.errors[0].node_id in caught.value.node_errors
    assert result.errors[0].code in {"invalid", "input"}


def test_a_job_outlives_its_client(url: str, client: Client) -> None:
    with Client(f"worker+{url}", token=TOKEN) as other:
        run: Run = other.submit(one_node("TestText", text="still there"))
        run.wait(30)
    assert client.attach(run.id).wait(30).outputs[0].text == "still there"


def test_the_same_key_is_the_same_job(client: Client, worker: WorkerServer) -> None:
    prompt = one_node("TestText", text="once")
    runs = [client.submit(prompt, idempotency_key="mine-1") for _ in range(3)]
    assert len({run.id for run in runs}) == 1
    assert {run.wait(30).outputs[0].text for run in runs} == {"once"}


def test_a_token_that_is_wrong_or_missing(url: str) -> None:
    said = []
    for options in ({"token": "other"}, {}):
        with Client(f"worker+{url}", **options) as client, pytest.raises(TargetRefused) as caught:
            client.run(one_node("TestText", text="x"))
        assert caught.value.status == 401
        said.append(str(caught.value))
    assert said[0] != said[1]


def test_a_worker_that_dies_and_comes_back(tmp_path: Path) -> None:
    """Killed while a job runs, started again at the same port: the client follows the job to its end."""
    with WorkerServer(tmp_path) as first:
        port = first.client.port
        with Client(f"worker+http://127.0.0.1:{port}") as client:
            run = client.submit(one_node("TestSleep", seconds=1.5))
            while run.status() == "queued":
                time.sleep(0.01)
            first.kill()
            with WorkerServer(tmp_path, "--port", str(port)):
                result = run.wait(60)
    assert result.ok
    assert any("ran it a second time" in warning for warning in result.warnings)


def test_a_bare_url_of_something_else(tmp_path: Path) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        try:
            with pytest.raises(TargetError, match="neither a comfy-cpu worker nor a ComfyUI"):
                Client(f"http://127.0.0.1:{port}")
        finally:
            server.kill()


def test_the_command_line(url: str, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFY_CPU_TOKEN", TOKEN)
    options = ["--target", url, "--option", "price_per_second=2", "--json", "--output", tmp_path / "out"]
    answer = cli("run", WORKFLOW, "--input", PHOTO, *options)
    assert answer.code == 0, answer.err
    document = answer.json()
    assert document["estimated_cost"] > 0
    assert {Path(output["path"]).parent for output in document["outputs"]} == {tmp_path / "out"}
    answer = cli("run", WORKFLOW, "-i", PHOTO, "--target", f"worker+{url}", "--option", "nonsense=1")
    assert answer.code == 2
    assert "no option 'nonsense'" in answer.err
    monkeypatch.setenv("COMFY_CPU_TOKEN", "other")
    answer = cli("run", WORKFLOW, "-i", PHOTO, "--target", url)
    assert (answer.code, "401" in answer.err) == (7, True)
    answer = cli("run", WORKFLOW, "-i", PHOTO, "--target", "worker+http://127.0.0.1:1", "--option", "patience_s=0.1")
    assert (answer.code, "cannot be reached" in answer.err) == (7, True)
    answer = cli("run", WORKFLOW, "-i", PHOTO, "--target", "mars://1")
    assert answer.code == 2


def test_ctrl_c_cancels_the_job(
    worker: WorkerServer, url: str, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "w.json").write_text(json.dumps(one_node("TestSleep", seconds=60)))
    before = jobs_in_progress(worker)
    process = subprocess.Popen(
        [Path(sys.executable).with_name("comfy-cpu"), "run", tmp_path / "w.json", "--target", f"worker+{url}"],
        env={**clean_environment, "COMFY_CPU_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in itertools.count():
        if jobs_in_progress(worker) != before:
            break
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    until = time.monotonic() + 30
    while jobs_in_progress(worker) != before:
        assert time.monotonic() < until, "the job runs on"
        time.sleep(0.05)


def jobs_in_progress(worker: WorkerServer) -> set[str]:
    jobs = worker.client.get("/v2/local/health").json["jobs"]
    return {str(jobs["inProgress"])}
