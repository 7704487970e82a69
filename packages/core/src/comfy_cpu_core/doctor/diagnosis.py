"""`diagnose`: gather the facts, call the checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_cpu_core.doctor.check import Check, State, one_line
from comfy_cpu_core.doctor.hub import HubAnswer, check_hub, hub_settings, probe_hub
from comfy_cpu_core.doctor.machine import check_cpus, check_instruction_sets, check_memory, check_threads
from comfy_cpu_core.doctor.software import (
    check_node_classes,
    check_onnx,
    check_optional,
    check_plugins,
    check_python,
    check_targets,
    look_up,
)
from comfy_cpu_core.doctor.storage import (
    check_models,
    check_packaged_model,
    check_tree,
    inspect_place,
    look_at_models,
)
from comfy_cpu_core.errors import ComfyCpuError, InputError
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.resources import THREADS_VARIABLE, Resources, detect
from comfy_cpu_core.tree import ModelTree

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        checks: in the order in which a person reads them.
        resources: what the machine gives us; with a bad ``COMFY_CPU_THREADS``, as if it were unset.
    """

    checks: tuple[Check, ...]
    resources: Resources

    @property
    def ok(self) -> bool:
        """Whether the shipped background-removal workflow can run here, once its models are fetched."""
        return all(check.state != "problem" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """For ``doctor --json``."""
        resources = {**vars(self.resources), "has_bf16": self.resources.has_bf16}
        resources["instruction_sets"] = sorted(self.resources.instruction_sets)
        return {"ok": self.ok, "checks": [vars(check) for check in self.checks], "resources": resources}


def diagnose(
    environ: Mapping[str, str], plugins: Plugins, models: Path, probe: Callable[[str], HubAnswer] = probe_hub
) -> Diagnosis:
    """Look at this machine. Loads the plugins' node classes, no runtime; asks the Hub, nothing else on the network.

    Args:
        environ: read for ``COMFY_CPU_THREADS``; huggingface_hub reads its own variables itself.
        plugins: whose nodes, models and targets count.
        models: the model tree.
        probe: asks the Hub.
    """
    resources, threads = _resources(environ)
    tree = ModelTree(models)
    checks = [check_cpus(resources), check_memory(resources), check_instruction_sets(resources), threads]
    checks += [
        check_python(),
        check_onnx(look_up("openvino", "openvino"), look_up("onnxruntime", "onnxruntime", "onnxruntime-openvino")),
        check_optional(
            look_up("llama_cpp", "llama-cpp-python"), "language-model nodes", "pip install 'comfy-cpu-nodes[llama]'"
        ),
        check_optional(
            look_up("transformers", "transformers"), "Florence-2 nodes", "pip install 'comfy-cpu-nodes[florence2]'"
        ),
        check_optional(
            look_up("torch", "torch"),
            "Florence-2 nodes",
            "pip install 'comfy-cpu-nodes[florence2]' (choose torch's CPU build)",
        ),
    ]
    nodes = _guarded("node classes", lambda: _node_classes(plugins), "problem")
    targets = _guarded("targets", lambda: _targets(plugins), "problem")
    known = _guarded("models", lambda: _models(plugins, tree), "problem")
    # After the questions to the plugins, because those may have shown that one is broken.
    checks += [*check_plugins(plugins.infos()), *nodes, *targets, check_tree(inspect_place(models)), *known]
    checks += _guarded("Hugging Face Hub", lambda: _hub(probe), "missing", "check HF_ENDPOINT and the proxy variables")
    return Diagnosis(tuple(checks), resources)


def _resources(environ: Mapping[str, str]) -> tuple[Resources, Check]:
    try:
        resources = detect(environ)
    except InputError as error:
        others = {key: value for key, value in environ.items() if key != THREADS_VARIABLE}
        return detect(others), Check("threads", "problem", str(error), error.remedy or "")
    return resources, check_threads(resources)


def _node_classes(plugins: Plugins) -> Check:
    from comfy_cpu_core.registry import NodeRegistry

    return check_node_classes(NodeRegistry(plugins))


def _targets(plugins: Plugins) -> Check:
    return check_targets(plugins.unique("comfy_cpu_targets", "scheme", "target"))


def _models(plugins: Plugins, tree: ModelTree) -> list[Check]:
    from comfy_cpu_core.needs import known_models

    specs = known_models(plugins)
    states = look_at_models(tree, specs.values())
    packaged = [check_packaged_model(spec, states[spec.id]) for spec in specs.values() if spec.scheme == "package"]
    return [*check_models(states), *packaged]


def _hub(probe: Callable[[str], HubAnswer]) -> Check:
    return check_hub(hub_settings(), probe)


def _guarded(
    name: str,
    look: Callable[[], Check | list[Check]],
    failure: State,
    remedy: str = "see `comfy-cpu plugins list`",
) -> list[Check]:
    """Call a check that asks plugins or a library; whatever it raises (two plugins that contradict each other, a
    malformed HF_ENDPOINT) is a finding too, and no reason to stop.
    """
    try:
        found = look()
    except ComfyCpuError as error:
        return [Check(name, failure, one_line(error), error.remedy or remedy)]
    except Exception as error:
        return [Check(name, failure, one_line(f"{type(error).__name__}: {error}"), remedy)]
    return found if isinstance(found, list) else [found]
