"""The doctor's checks, each on facts that are handed to it; no network, no runtime is imported."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from comfy_cpu_core import hookspecs
from comfy_cpu_core.doctor import Check, Diagnosis, diagnose
from comfy_cpu_core.doctor.check import format_bytes
from comfy_cpu_core.doctor.hub import HubAnswer, HubSettings, check_hub
from comfy_cpu_core.doctor.machine import check_cpus, check_instruction_sets, check_memory, check_threads
from comfy_cpu_core.doctor.software import (
    SHIPPED_WORKFLOW_CLASSES,
    Installed,
    check_node_classes,
    check_onnx,
    check_optional,
    check_plugins,
    check_targets,
    look_up,
)
from comfy_cpu_core.doctor.storage import (
    Place,
    check_models,
    check_packaged_model,
    check_tree,
    inspect_place,
    look_at_models,
)
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.plugins import PluginInfo, Plugins
from comfy_cpu_core.resources import Resources
from comfy_cpu_core.results import TargetType
from comfy_cpu_core.tree import ModelTree

GIB = 1 << 30
ROOT = Path(__file__).parents[3]

MACHINE = Resources(
    cpus=4,
    cpu_quota=4.0,
    affinity=64,
    host_cpus=64,
    physical_cores=32,
    threads_per_core=2,
    memory_total_bytes=512 * GIB,
    memory_limit_bytes=8 * GIB,
    memory_available_bytes=7 * GIB,
    instruction_sets=frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}),
    arch="x86_64",
    cpu_model="Recorded CPU",
    cgroup_version=2,
    threads=4,
    threads_source="quota",
)

SPEC = ModelSpec("ben2-base", "hf:PramaLLC/BEN2", (ModelFile("a.onnx", "ben2_onnx/a.onnx", size=3),), "MIT")
PACKAGED = ModelSpec("nudenet-320n", "package:nudenet_of_tests", (ModelFile("320n.onnx", "Nudenet/320n.onnx"),), "?")


def assert_one_line_each(checks: Iterable[Check]) -> None:
    for check in checks:
        assert "\n" not in check.detail + check.remedy
        assert check.detail
        assert check.state in ("ok", "note") or check.remedy, f"{check.name} is {check.state} without a remedy"


# The machine


def test_cpus_say_why_there_are_so_few() -> None:
    found = check_cpus(MACHINE)
    assert found.state == "ok"
    assert "4 of the host's 64" in found.detail
    assert "quota of 4" in found.detail
    assert "affinity" not in found.detail
    pinned = check_cpus(replace(MACHINE, cpus=2, cpu_quota=None, affinity=2))
    assert "affinity to 2" in pinned.detail
    assert "quota" not in pinned.detail


def test_memory_names_the_cgroup_limit() -> None:
    assert check_memory(MACHINE) == Check(
        "memory", "ok", "8.0 GiB by cgroup limit (the host has 512.0 GiB), 7.0 GiB available"
    )
    free = check_memory(replace(MACHINE, memory_limit_bytes=512 * GIB))
    assert free.detail == "512.0 GiB, 7.0 GiB available"


def test_little_memory_is_a_note_with_a_remedy_that_fits() -> None:
    little = check_memory(replace(MACHINE, memory_available_bytes=GIB))
    assert little.state == "note"
    assert "container" in little.remedy
    laptop = check_memory(replace(MACHINE, memory_limit_bytes=512 * GIB, memory_available_bytes=GIB))
    assert "container" not in laptop.remedy


@pytest.mark.parametrize(
    "unknown",
    [{"memory_limit_bytes": None}, {"memory_available_bytes": None}, {"memory_total_bytes": None}],
)
def test_unknown_memory(unknown: dict[str, Any]) -> None:
    assert_one_line_each([check_memory(replace(MACHINE, **unknown))])


@pytest.mark.parametrize(
    ("arch", "sets", "state", "words"),
    [
        ("x86_64", {"avx2", "avx512_bf16"}, "ok", "bf16 in hardware"),
        ("x86_64", {"avx2", "avx512_vnni"}, "note", "int8 in hardware, but no bf16"),
        ("x86_64", {"avx2"}, "note", "no bf16"),
        ("x86_64", {"f16c"}, "note", "no AVX2"),
        ("aarch64", {"asimd", "bf16", "i8mm"}, "ok", "bf16 in hardware"),
        ("aarch64", {"asimd"}, "note", "no bf16"),
        ("riscv64", set(), "note", "does not say"),
    ],
)
def test_instruction_sets(arch: str, sets: set[str], state: str, words: str) -> None:
    found = check_instruction_sets(replace(MACHINE, arch=arch, instruction_sets=frozenset(sets)))
    assert found.state == state
    assert words in found.detail


def test_more_threads_than_cpus() -> None:
    assert check_threads(MACHINE).state == "ok"
    assert check_threads(replace(MACHINE, threads=3, threads_source="COMFY_CPU_THREADS")).state == "ok"
    many = check_threads(replace(MACHINE, threads=64, threads_source="COMFY_CPU_THREADS"))
    assert many.state == "note"
    assert "set it to 4" in many.remedy


def test_format_bytes() -> None:
    assert [format_bytes(n) for n in (0, 512 << 20, GIB, 5 * GIB // 2)] == ["0 MiB", "512 MiB", "1.0 GiB", "2.5 GiB"]


# The software


def test_openvino_goes_before_onnxruntime() -> None:
    openvino, onnxruntime = Installed("openvino", "2025.3"), Installed("onnxruntime", "1.20")
    none = Installed("openvino", None), Installed("onnxruntime", None)
    assert check_onnx(openvino, onnxruntime).detail.startswith("openvino 2025.3 will be used")
    fallback = check_onnx(none[0], onnxruntime)
    assert (fallback.state, fallback.detail[:30]) == ("note", "onnxruntime 1.20 will be used;")
    nothing = check_onnx(*none)
    assert nothing.state == "problem"
    assert "openvino" in nothing.remedy


def test_look_up_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "explosive_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    info = tmp_path / "explosive_dist-7.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: explosive-dist\nVersion: 7.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert look_up("explosive_of_tests", "not-this", "explosive-dist").version == "7.1"
    assert look_up("explosive_of_tests", "not-this").version == "?"
    absent = look_up("no_such_module_of_tests", "explosive-dist")
    assert not absent
    assert check_optional(absent, "some nodes", "pip install it") == Check(
        "no_such_module_of_tests", "note", "not installed; only needed for some nodes", "pip install it"
    )


def test_plugins_broken_and_switched_off() -> None:
    checks = check_plugins(
        [
            PluginInfo("ben2", "comfy-cpu-plugin-ben2", "0.1", (), "active"),
            PluginInfo("ours", "ours-dist", "2", (), "broken", "ImportError: no\nsuch thing"),
            PluginInfo("off", "", "", (), "disabled"),
            PluginInfo("shadowed", "x", "1", (), "active", "class Sharpen is ben2's"),
        ]
    )
    assert [(c.name, c.state) for c in checks] == [
        ("plugins", "ok"),
        ("plugin ours", "missing"),
        ("plugin off", "note"),
        ("plugin shadowed", "note"),
    ]
    assert "COMFY_CPU_DISABLED_PLUGINS=ours" in checks[1].remedy
    assert_one_line_each(checks)


def test_node_classes_of_the_shipped_workflow() -> None:
    assert check_node_classes(SHIPPED_WORKFLOW_CLASSES | {"More"}).state == "ok"
    short = check_node_classes(SHIPPED_WORKFLOW_CLASSES - {"LoadImage"})
    assert short.state == "problem"
    assert "LoadImage" in short.detail
    assert "BEN2" not in short.detail


def test_the_list_of_classes_is_that_of_the_shipped_workflow() -> None:
    workflow = json.loads((ROOT / "examples/workflows/background_removal.json").read_text())
    drawn_only = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
    assert {node["type"] for node in workflow["nodes"]} - drawn_only == SHIPPED_WORKFLOW_CLASSES


def test_targets() -> None:
    assert check_targets(["embedded", "comfyui"]).detail == "comfyui, embedded"
    assert check_targets(["comfyui"]).state == "problem"


# The model tree


def test_a_tree_that_is_not_there_yet(tmp_path: Path) -> None:
    place = inspect_place(tmp_path / "a" / "b")
    assert (place.exists, place.writable) == (False, True)
    assert place.free_bytes is not None
    assert not (tmp_path / "a").exists()
    assert "will be made" in check_tree(replace(place, free_bytes=99 * GIB)).detail


def test_a_file_where_the_tree_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        found = check_tree(inspect_place(path))
        assert found.state == "missing"
        assert "--models" in found.remedy


def test_a_tree_below_a_directory_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    real = Path.exists

    def exists(path: Path, **options: Any) -> bool:
        if closed in path.parents:
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(Path, "exists", exists)
    assert not inspect_place(closed / "models").exists


@pytest.mark.parametrize(
    ("place", "state", "words"),
    [
        (Place(Path("/m"), True, True, 99 * GIB), "ok", "/m, 99.0 GiB free"),
        (Place(Path("/m"), True, True, GIB), "note", "too little"),
        (Place(Path("/m"), True, False, 99 * GIB), "note", "read-only"),
        (Place(Path("/m"), False, False, None), "missing", "cannot be made"),
        (Place(Path("/m"), True, True, None), "ok", "/m"),
    ],
)
def test_tree(place: Place, state: str, words: str) -> None:
    found = check_tree(place)
    assert found.state == state
    assert words in found.detail
    assert_one_line_each([found])


def test_models_present_absent_and_wrong(tmp_path: Path) -> None:
    tree = ModelTree(tmp_path)
    assert look_at_models(tree, [SPEC]) == {"ben2-base": "missing"}
    file = tree.path("ben2_onnx/a.onnx")
    file.parent.mkdir()
    file.write_bytes(b"123")
    assert look_at_models(tree, [SPEC]) == {"ben2-base": "present"}
    file.write_bytes(b"truncat")
    assert look_at_models(tree, [SPEC]) == {"ben2-base": "wrong"}


def test_a_record_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    record = tmp_path / ".comfy-cpu/records/ben2-base.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    states = look_at_models(ModelTree(tmp_path), [SPEC])
    assert states == {"ben2-base": None}
    assert [(c.name, c.state) for c in check_models(states)] == [("models", "missing"), ("model ben2-base", "missing")]


def test_models_line_by_line() -> None:
    checks = check_models({"a": "verified", "b": "missing", "c": "wrong", "d": "partial", "e": "installed"})
    assert [(c.name, c.state) for c in checks] == [
        ("models", "note"),
        ("model c", "missing"),
        ("model d", "missing"),
    ]
    assert checks[0].detail == "2 of 5 known models are here: a, e; not here: b"
    assert "models fetch" in checks[0].remedy
    assert_one_line_each(checks)
    assert check_models({"a": "present"}) == [Check("models", "ok", "1 of 1 known models are here: a")]
    assert check_models({"a": "missing"})[0].state == "missing"
    assert check_models({})[0].state == "note"


def test_weights_inside_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ModelTree(tmp_path / "models")

    def found() -> Check:
        return check_packaged_model(PACKAGED, look_at_models(tree, [PACKAGED])[PACKAGED.id])

    assert found().state == "missing"
    assert "pip install nudenet_of_tests" in found().remedy
    package = tmp_path / "nudenet_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "320n.onnx").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert found().detail == "in the installed package nudenet_of_tests"
    in_tree = tree.path("Nudenet/320n.onnx")
    in_tree.parent.mkdir(parents=True)
    in_tree.touch()
    assert found().detail == "in the model tree"


# The Hub

HUB = HubSettings("https://hub.example", offline=False, has_token=False)


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (HubAnswer(200), "ok", "https://hub.example answers; no token is set"),
        (HubAnswer(307), "ok", "answers"),
        (HubAnswer(404), "ok", "answers"),
        (HubAnswer(501), "ok", "answers"),
        (HubAnswer(401), "missing", "HTTP 401"),
        (HubAnswer(403), "missing", "HTTP 403"),
        (HubAnswer(429), "note", "HTTP 429"),
        (HubAnswer(502), "missing", "HTTP 502"),
        (HubAnswer(None, "ConnectError: name not known"), "missing", "cannot be reached: ConnectError"),
    ],
)
def test_hub_answers(answer: HubAnswer, state: str, words: str) -> None:
    found = check_hub(HUB, lambda endpoint: answer)
    assert found.state == state
    assert words in found.detail
    assert_one_line_each([found])


def test_an_offline_hub_is_not_asked() -> None:
    def probe(endpoint: str) -> HubAnswer:
        raise AssertionError("asked")

    found = check_hub(replace(HUB, offline=True), probe)
    assert found.state == "note"
    assert "HF_HUB_OFFLINE" in found.detail


def test_the_hub_check_prints_no_password() -> None:
    settings = HubSettings("https://me:sesame@hub.example", offline=False, has_token=True)
    problem = "ProxyError: http://me:sesame@proxy.example:3128\nrefused"
    found = check_hub(settings, lambda endpoint: HubAnswer(None, problem))
    assert "sesame" not in found.detail + found.remedy
    assert "https://hub.example" in found.detail
    assert "a token is set" in check_hub(settings, lambda endpoint: HubAnswer(200)).detail
    assert_one_line_each([found])


# All together


def plugins_of(**hooks: Any) -> Plugins:
    """One plugin, `test`, that gives what it is told to, whatever it is."""

    def implementation(name: str, items: Any) -> Any:
        def hook() -> Any:
            if isinstance(items, Exception):
                raise items
            return items

        hook.__name__ = name
        return hookimpl(hook)

    plugin = SimpleNamespace(**{name: implementation(name, items) for name, items in hooks.items()})
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name="test")
    return Plugins(manager, [PluginInfo("test", "test-dist", "1", tuple(hooks), "active")])


class Node:
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


def open_target(name: str, options: Any) -> Any:
    raise AssertionError("the doctor opens no target")


def everything() -> dict[str, Any]:
    return {
        "comfy_cpu_node_classes": [NodeClass(name, Node, name) for name in SHIPPED_WORKFLOW_CLASSES],
        "comfy_cpu_targets": [TargetType("embedded", open_target, "here")],
        "comfy_cpu_models": [SPEC, PACKAGED],
    }


def look(plugins: Plugins, models: Path, environ: dict[str, str] | None = None) -> Diagnosis:
    return diagnose(environ or {}, plugins, models, lambda endpoint: HubAnswer(200))


def states(diagnosis: Diagnosis) -> dict[str, str]:
    return {check.name: check.state for check in diagnosis.checks}


def test_a_machine_that_has_it_all(tmp_path: Path) -> None:
    found = look(plugins_of(**everything()), tmp_path)
    assert found.ok
    assert "problem" not in states(found).values()
    assert {"CPUs", "memory", "instruction sets", "threads", "Python", "ONNX runtime", "plugins"} <= states(
        found
    ).keys()
    assert {"node classes", "targets", "model tree", "models", "Hugging Face Hub"} <= states(found).keys()
    assert_one_line_each(found.checks)


def test_json_is_json(tmp_path: Path) -> None:
    told = json.loads(json.dumps(look(plugins_of(**everything()), tmp_path).to_json()))
    assert told["ok"] is True
    assert told["resources"]["cpus"] >= 1
    assert isinstance(told["resources"]["instruction_sets"], list)
    assert set(told["checks"][0]) == {"name", "state", "detail", "remedy"}


@pytest.mark.parametrize(
    ("hook", "items", "name"),
    [
        ("comfy_cpu_node_classes", [], "node classes"),
        ("comfy_cpu_targets", [], "targets"),
        ("comfy_cpu_node_classes", ImportError("no\nnumpy"), "plugin test"),
        ("comfy_cpu_targets", [TargetType("embedded", open_target, "")] * 2, "targets"),
        ("comfy_cpu_models", [SPEC, SPEC], "models"),
    ],
)
def test_what_stops_every_run_is_a_problem(tmp_path: Path, hook: str, items: Any, name: str) -> None:
    found = look(plugins_of(**{**everything(), hook: items}), tmp_path)
    assert not found.ok
    assert states(found)[name] in ("problem", "missing")
    assert_one_line_each(found.checks)


def test_a_broken_plugin_that_no_run_needs_is_no_problem(tmp_path: Path) -> None:
    found = look(plugins_of(**{**everything(), "comfy_cpu_models": ["no spec\nat all"]}), tmp_path)
    assert found.ok
    assert states(found)["plugin test"] == "missing"
    assert_one_line_each(found.checks)


def test_absent_models_and_hub_are_no_problem(tmp_path: Path) -> None:
    found = diagnose({}, plugins_of(**everything()), tmp_path, lambda endpoint: HubAnswer(None, "no route"))
    assert found.ok
    assert states(found)["Hugging Face Hub"] == "missing" or "HF_HUB_OFFLINE" in str(found.checks[-1])
    assert states(found)["models"] == "missing"


def test_bad_thread_number_is_a_problem_and_the_rest_is_still_told(tmp_path: Path) -> None:
    found = look(plugins_of(**everything()), tmp_path, {"COMFY_CPU_THREADS": "many"})
    assert not found.ok
    assert states(found)["threads"] == "problem"
    assert states(found)["node classes"] == "ok"


def test_no_onnx_runtime_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_cpu_core.doctor.diagnosis.look_up", lambda name, *_: Installed(name, None))
    found = look(plugins_of(**everything()), tmp_path)
    assert not found.ok
    assert states(found)["ONNX runtime"] == "problem"
