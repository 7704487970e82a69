from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from comfy_cpu_core.context import RunContext, use_run
from comfy_cpu_core.errors import DeadlineExceeded, InputError, Interrupted, ModelCorrupt, ModelError, ModelMissing
from comfy_cpu_core.resources import Resources, get_resources
from comfy_cpu_nodes.runtimes import (
    CACHE_VARIABLE,
    PRECISION_KEY,
    PRECISION_VARIABLE,
    RUNTIME_VARIABLE,
    STAND_IN_KEY,
    OnnxModel,
    load_onnx,
    loaded_models,
    release_models,
)

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def python(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_model_says_what_it_takes_and_gives(double: Path, runtime: str) -> None:
    model = load_onnx(double, name="double")
    assert [(i.name, i.shape, i.dtype) for i in model.inputs] == [("x", (None, 3), np.dtype("float32"))]
    assert [str(o) for o in model.outputs] == ["float32 [?, 3]"]
    assert model.runtime.startswith(f"{runtime} ")
    assert model.path == double
    assert repr(model).startswith("<OnnxModel double")


def test_it_infers(double: Path, runtime: str) -> None:
    model = load_onnx(double, name="double")
    first = model.run({"x": ROWS})["y"]
    second = model.run({"x": ROWS[:1] + 1})["y"]
    np.testing.assert_allclose(first, 2 * ROWS, rtol=0.01)  # still there after the second inference
    np.testing.assert_allclose(second, 2 * ROWS[:1] + 2, rtol=0.01)
    assert first.dtype == np.float32


def test_arrays_that_are_read_only_or_not_contiguous(double: Path, runtime: str) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2].T
    array.flags.writeable = False
    np.testing.assert_allclose(load_onnx(double, name="double").run({"x": array})["y"], 2 * array, rtol=0.01)


def test_half_precision_in_and_out(save, runtime: str) -> None:  # type: ignore[no-untyped-def]
    half = numpy_helper.from_array(np.float16(0.5), "half")
    path = save(
        [helper.make_node("Mul", ["x", "half"], ["y"])],
        initializers=[half],
        x=(TensorProto.FLOAT16, [3]),
        y=(TensorProto.FLOAT16, [3]),
    )
    model = load_onnx(path, name="half")
    result = model.run({"x": np.array([1, 2, 4], np.float16)})["y"]
    assert result.dtype == model.outputs[0].dtype == np.float16
    np.testing.assert_array_equal(result, np.array([0.5, 1, 2], np.float16))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "needs the input 'x': float32 [?, 3]"),
        ({"x": ROWS, "z": ROWS}, "has no input 'z'; it has x"),
        ({"x": ROWS.astype(np.float64)}, "takes float32 [?, 3] as 'x', not float64 [2, 3]"),
        ({"x": ROWS[:, :2]}, "takes float32 [?, 3] as 'x', not float32 [2, 2]"),
        ({"x": ROWS[0]}, "takes float32 [?, 3] as 'x', not float32 [3]"),
    ],
)
def test_what_does_not_fit_is_a_clear_error(
    double: Path, runtime: str, feeds: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        load_onnx(double, name="double").run(feeds)
    assert message in str(caught.value)


def test_an_inference_that_fails_is_a_model_error(save, runtime: str) -> None:  # type: ignore[no-untyped-def]
    five = numpy_helper.from_array(np.array([5, 1], np.int64), "five")
    path = save([helper.make_node("Reshape", ["x", "five"], ["y"])], initializers=[five], y=(TensorProto.FLOAT, [5, 1]))
    with pytest.raises(ModelError, match=r"reshape: .* failed to infer: ."):
        load_onnx(path, name="reshape").run({"x": ROWS})


# --- bad files ----------------------------------------------------------------------------------------------------


def garble(data: bytes) -> bytes:
    """The same fields, with nonsense for a graph."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph.SerializeToString()
    position = data.index(graph)
    return data[:position] + b"\xff" * len(graph) + data[position + len(graph) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:1],
        lambda data: data[: len(data) // 4],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-12],
        lambda data: bytes(range(256)) * 8,
        lambda data: b"\x80\x04\x95" + data,
        garble,
    ],
    ids=["empty", "one byte", "a quarter", "a half", "nearly whole", "random", "a pickle", "garbled graph"],
)
def test_a_damaged_file_is_corrupt(
    damage: Callable[[bytes], bytes], double: Path, runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    double.write_bytes(damage(double.read_bytes()))
    with pytest.raises(ModelCorrupt) as caught:
        load_onnx(double, name="double")
    assert str(double) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy is not None
    assert "comfy-cpu models verify" in caught.value.remedy
    assert loaded_models() == []
    assert capfd.readouterr() == ("", "")  # no library talks past our error


def test_an_unknown_operator_is_an_error_that_names_it(
    tmp_path: Path, runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="example.invalid")
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "g", [info], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("example.invalid", 1)]
    path = tmp_path / "unknown.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))
    with pytest.raises(ModelCorrupt, match="Frobnicate"):
        load_onnx(path, name="unknown")
    assert capfd.readouterr() == ("", "")


def test_no_file_and_a_directory(tmp_path: Path, runtime: str) -> None:
    with pytest.raises(ModelMissing, match=r"none\.onnx"):
        load_onnx(tmp_path / "none.onnx", name="none")
    with pytest.raises(ModelCorrupt, match="is not a file"):
        load_onnx(tmp_path, name="directory")


# --- what chooses the runtime, the threads and the precision --------------------------------------------------------


def test_openvino_is_preferred(double: Path) -> None:
    pytest.importorskip("openvino")
    assert load_onnx(double, name="double").runtime.startswith("openvino ")


def test_without_openvino_onnxruntime_takes_over(double: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("comfy_cpu_nodes.runtimes.onnx.find_spec", lambda name: name == "onnxruntime" or None)
    assert load_onnx(double, name="double").runtime.startswith("onnxruntime ")
    monkeypatch.setenv(RUNTIME_VARIABLE, "openvino")
    with pytest.raises(ModelError, match="openvino, which is not installed") as caught:
        load_onnx(double, name="double")
    assert caught.value.remedy == "pip install 'comfy-cpu-nodes[openvino]'"


def test_without_any_runtime_the_error_says_what_to_install(double: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_cpu_nodes.runtimes.onnx.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="no runtime for ONNX models is installed") as caught:
        load_onnx(double, name="double")
    assert caught.value.remedy == "pip install 'comfy-cpu-nodes[openvino]'"


@pytest.mark.parametrize(("variable", "value"), [(RUNTIME_VARIABLE, "tensorrt"), (PRECISION_VARIABLE, "int4")])
def test_a_variable_that_means_nothing(
    variable: str, value: str, double: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=f"{variable} is '{value}'") as caught:
        load_onnx(double, name="double")
    assert caught.value.remedy


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_follow_the_resources(
    threads: int, double: Path, runtime: str, change_resources: Callable[..., Resources]
) -> None:
    if threads > get_resources().cpus:
        pytest.skip("this machine has one CPU")
    change_resources(threads=threads)
    model = load_onnx(double, name="double")
    assert model.threads == model.use().threads == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can confine a process to a CPU")
def test_threads_follow_the_affinity_of_the_process(double: Path, runtime: str) -> None:
    program = (
        "import os, pathlib, sys\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from comfy_cpu_nodes.runtimes import load_onnx\n"
        "print(load_onnx(pathlib.Path(sys.argv[1]), name='m').threads)"
    )
    assert python(program, str(double)) == "1"


def test_the_precision_follows_the_cpu_the_variable_and_the_file(
    save,  # type: ignore[no-untyped-def]
    double: Path,
    monkeypatch: pytest.MonkeyPatch,
    change_resources: Callable[..., Resources],
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv(RUNTIME_VARIABLE, "openvino")
    monkeypatch.setattr("comfy_cpu_nodes.runtimes._openvino.supports_bf16", lambda: True)
    change_resources(instruction_sets=frozenset({"avx512_bf16"}))
    assert load_onnx(double, name="double").precision == "bf16"
    assert load_onnx(double, name="double", precision="f32").precision == "f32"
    careful = save([helper.make_node("Relu", ["x"], ["y"])], metadata={PRECISION_KEY: "f32"})
    assert load_onnx(careful, name="careful").precision == "f32"
    monkeypatch.setenv(PRECISION_VARIABLE, "f32")
    assert load_onnx(double, name="double").precision == "f32"
    monkeypatch.delenv(PRECISION_VARIABLE)
    change_resources(instruction_sets=frozenset({"avx2"}))
    assert load_onnx(double, name="double").precision == "f32"


# --- what the run learns --------------------------------------------------------------------------------------------


def test_a_run_learns_once_of_each_model(double: Path, runtime: str, run: RunContext) -> None:
    model = load_onnx(double, name="a/double.onnx")
    load_onnx(double, name="a/double.onnx")
    assert [(use.name, use.runtime, use.stand_in) for use in run.model_uses] == [
        ("a/double.onnx", model.runtime, False)
    ]
    assert run.model_uses[0].load_seconds > 0
    assert run.warnings == []
    another = RunContext(run.folders, run.models)
    with use_run(another):
        load_onnx(double, name="a/double.onnx")
    assert [use.load_seconds for use in another.model_uses] == [0.0]


def test_a_stand_in_is_said_loudly(save, runtime: str, run: RunContext) -> None:  # type: ignore[no-untyped-def]
    path = save([helper.make_node("Relu", ["x"], ["y"])], metadata={STAND_IN_KEY: "true"})
    model = load_onnx(path, name="real/name.onnx")
    load_onnx(path, name="real/name.onnx")
    assert model.stand_in
    assert run.model_uses[0].stand_in
    assert len(run.warnings) == 1
    assert "real/name.onnx is a STAND-IN" in run.warnings[0]


# --- the cache ------------------------------------------------------------------------------------------------------


def test_a_model_that_was_dropped_is_loaded_again(double: Path, runtime: str) -> None:
    model = load_onnx(double, name="double")
    assert [m.in_use for m in loaded_models()] == [False]
    assert release_models() == [m.key for m in loaded_models()]
    np.testing.assert_allclose(model.run({"x": ROWS})["y"], 2 * ROWS, rtol=0.01)
    release_models(aggressive=True)
    assert loaded_models() == []
    np.testing.assert_allclose(model.run({"x": ROWS})["y"], 2 * ROWS, rtol=0.01)
    assert len(loaded_models()) == 1


def test_a_budget_of_nothing_still_infers(double: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "0")
    model = load_onnx(double, name="double")
    assert loaded_models() == []
    np.testing.assert_allclose(model.run({"x": ROWS})["y"], 2 * ROWS, rtol=0.01)
    assert loaded_models() == []


def test_a_replaced_file_is_another_model(save, double: Path, runtime: str) -> None:  # type: ignore[no-untyped-def]
    load_onnx(double, name="double")
    save([helper.make_node("Neg", ["x"], ["y"])], name="double.onnx")
    np.testing.assert_array_equal(load_onnx(double, name="double").run({"x": ROWS})["y"], -ROWS)


def test_threads_share_a_model(double: Path, runtime: str) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            rows = np.full((seed + 1, 3), seed, np.float32)
            for _ in range(5):
                result = load_onnx(double, name="double").run({"x": rows})["y"]
                np.testing.assert_allclose(result, 2 * rows, rtol=0.01)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(loaded_models()) == 1


# --- interruption ---------------------------------------------------------------------------------------------------


class Stop:
    """Lets a run go on for a while, then raises each time it is asked."""

    def __init__(self, error: type[Exception], after: float) -> None:
        self._error, self._at = error, time.monotonic() + after
        self.raised_at = 0.0

    def __call__(self) -> None:
        if time.monotonic() > self._at:
            self.raised_at = time.monotonic()
            raise self._error("enough")


@pytest.mark.parametrize("error", [Interrupted, DeadlineExceeded])
def test_an_inference_ends_within_a_second(slow: OnnxModel, run: RunContext, error: type[Exception]) -> None:
    square = np.eye(1024, dtype=np.float32)
    for _ in range(2):  # the model is good for another inference
        stop = Stop(error, after=0.3)
        run.check = stop
        with pytest.raises(error, match="enough"):
            slow.run({"x": square})
        assert time.monotonic() - stop.raised_at < 1
    assert [model.in_use for model in loaded_models()] == [False]


def test_waiting_for_another_inference_ends_too(slow: OnnxModel, run: RunContext) -> None:
    square = np.eye(1024, dtype=np.float32)
    finished = threading.Event()
    started = threading.Event()

    def first_check() -> None:
        started.set()
        if finished.is_set():
            raise Interrupted("enough")

    def infer_first() -> None:
        with use_run(RunContext(run.folders, run.models, check=first_check)), pytest.raises(Interrupted):
            slow.run({"x": square})

    thread = threading.Thread(target=infer_first)
    thread.start()
    try:
        assert started.wait(30)
        stop = Stop(DeadlineExceeded, after=0.3)
        run.check = stop
        with pytest.raises(DeadlineExceeded):
            slow.run({"x": square})
        assert time.monotonic() - stop.raised_at < 1
        assert thread.is_alive()
    finally:
        finished.set()
        thread.join(30)


# --- what is imported -----------------------------------------------------------------------------------------------


def test_importing_the_package_loads_no_model_library() -> None:
    program = (
        "import sys, comfy_cpu_nodes.runtimes, comfy_cpu_nodes.testing\n"
        "print([m for m in ('torch', 'openvino', 'onnxruntime', 'onnx') if m in sys.modules])"
    )
    assert python(program) == "[]"


def test_inferring_loads_neither_torch_nor_onnx(double: Path, runtime: str) -> None:
    program = (
        "import sys, pathlib, numpy\n"
        "from comfy_cpu_nodes.runtimes import load_onnx\n"
        "load_onnx(pathlib.Path(sys.argv[1]), name='m').run({'x': numpy.ones((1, 3), numpy.float32)})\n"
        "print([m for m in ('torch', 'onnx') if m in sys.modules])"
    )
    assert python(program, str(double)) == "[]"
