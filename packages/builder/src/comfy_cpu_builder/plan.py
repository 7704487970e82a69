"""The plan: everything that goes into an image, worked out of spec, workflows and the plugins' answers.

`ask` puts the questions to the plugins; `make_plan` is pure. A plan names what is wanted (``numpy>=1.26``, a branch, a
tag); the lock says which one that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement

from comfy_cpu_builder import layout, values
from comfy_cpu_builder.model_plan import NodeAnswer, PlannedModel, plan_models
from comfy_cpu_core.errors import BuildError, UsageError, WorkflowError
from comfy_cpu_core.image import ImageRequest, ImageStep, NodePack, StartPart
from comfy_cpu_core.models import ModelSpec
from comfy_cpu_core.needs import known_models
from comfy_cpu_core.nodes import NodeClass

if TYPE_CHECKING:
    from comfy_cpu_builder.spec import ComfyUISettings, ImageSpec, WorkerBaseSettings
    from comfy_cpu_builder.workflows import PlannedWorkflow
    from comfy_cpu_core.plugins import Plugins
    from comfy_cpu_core.registry import NodeRegistry

__all__ = ["TORCH", "Answers", "Distribution", "KnownClass", "Plan", "ask", "choose_target", "make_plan"]

#: Where CPU builds of torch are: PyPI's for Linux bring CUDA.
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


#: What a worker's base has for CUDA, and gets for CPUs.
TORCH = ("torch", "torchvision", "torchaudio")


@dataclass(frozen=True)
class Distribution:
    """A Python distribution that brings a plugin."""

    name: str
    version: str


@dataclass(frozen=True)
class KnownClass:
    """A node class that a plugin brings, and the extras of its distribution of which it needs one."""

    distribution: Distribution
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answers:
    """What the plugins said about the workflows of an image.

    Attributes:
        classes: class_type → who brings it, for the classes that the workflows use and plugins bring.
        comfyui_classes: further class_types that the ComfyUI has, as its /object_info says.
        distributions: of the plugins that said something about a node, by the plugin's name.
        needs: which models the nodes need.
        models: every model that a plugin knows, by id.
        packs, steps, start: as the hooks gave them, with the plugin's name.
        core: the distribution that brings the command line.
    """

    classes: Mapping[str, KnownClass]
    distributions: Mapping[str, Distribution]
    needs: tuple[NodeAnswer, ...]
    models: Mapping[str, ModelSpec]
    core: Distribution
    comfyui_classes: frozenset[str] = frozenset()
    packs: tuple[tuple[str, NodePack], ...] = ()
    steps: tuple[tuple[str, ImageStep], ...] = ()
    start: tuple[tuple[str, StartPart], ...] = ()


@dataclass(frozen=True)
class Plan:
    """What goes into an image.

    Attributes:
        target, base, platform, python: as in the spec, with the defaults filled in.
        workflows, models, node_packs: by name.
        requirements: what pip must install, sorted.
        index_urls: where pip looks beside its usual places while the lock is made.
        apt: Debian packages, sorted.
        environment: variables of the image.
        files: absolute path → text, of the image steps.
        commands: argument lists of the image steps, in order.
        start_environment, start_arguments: for the start script.
        comfyui, worker_comfyui: the settings of the targets with a ComfyUI; None for others.
    """

    target: str
    base: str
    workflows: tuple[PlannedWorkflow, ...]
    models: tuple[PlannedModel, ...]
    requirements: tuple[str, ...]
    platform: str = "linux/amd64"
    python: str = "3.11"
    tags: tuple[str, ...] = ()
    node_packs: tuple[NodePack, ...] = ()
    index_urls: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[tuple[str, ...], ...] = ()
    start_environment: Mapping[str, str] = field(default_factory=dict)
    start_arguments: tuple[str, ...] = ()
    comfyui: ComfyUISettings | None = None
    worker_comfyui: WorkerBaseSettings | None = None
    bake: bool = False
    instruction_sets: frozenset[str] = frozenset()
    limits: Mapping[str, float] = field(default_factory=dict)
    price_per_hour_usd: float | None = None

    @property
    def class_types(self) -> frozenset[str]:
        """The node classes of all workflows."""
        return frozenset().union(*(workflow.class_types for workflow in self.workflows))

    def to_json(self) -> dict[str, Any]:
        """The plan as ``comfy-cpu plan`` prints it. Fields are only ever added."""
        return {
            "target": self.target,
            "base": self.base,
            "platform": self.platform,
            "python": self.python,
            "tags": list(self.tags),
            "workflows": [
                {"name": w.name, "sha256": w.sha256, "nodes": sorted(w.class_types), "report": w.report.to_json()}
                for w in self.workflows
            ],
            "models": [
                {
                    "id": model.spec.id,
                    "source": model.spec.source,
                    "revision": model.spec.revision,
                    "licence": model.spec.licence,
                    "files": [vars(file) for file in model.spec.files],
                    "needed_by": list(model.needed_by),
                }
                for model in self.models
            ],
            "node_packs": [{"name": p.name, "source": p.source, "commit": p.commit} for p in self.node_packs],
            "requirements": list(self.requirements),
            "apt": list(self.apt),
            "environment": dict(self.environment),
            "commands": [list(command) for command in self.commands],
            "files": sorted(self.files),
            "start": {"environment": dict(self.start_environment), "arguments": list(self.start_arguments)},
        }


def choose_target(spec: ImageSpec, workflows: Sequence[PlannedWorkflow]) -> str:
    """The spec's target; where it names none, ``engine`` if that knows every node, else ``comfyui``."""
    if spec.target is not None:
        return spec.target
    return "comfyui" if any(workflow.report.unknown for workflow in workflows) else "engine"


def ask(
    spec: ImageSpec, target: str, workflows: Sequence[PlannedWorkflow], plugins: Plugins, registry: NodeRegistry
) -> Answers:
    """Ask every plugin what it has to say of these workflows.

    Raises:
        Exception: whatever a plugin's hook raises: no image is built with a broken plugin.
    """
    infos = {info.name: Distribution(info.distribution, info.version) for info in plugins.infos()}
    classes: dict[str, KnownClass] = {}
    spoke: dict[str, Distribution] = {}
    needs: list[NodeAnswer] = []
    for workflow in workflows:
        for change in workflow.report.changes:
            spoke[change.plugin] = infos[change.plugin]
        for node in workflow.nodes.values():
            plugin, node_class = registry.plugin_of(node.class_type), registry.get(node.class_type)
            if plugin is not None and node_class is not None:
                classes[node.class_type] = _known_class(infos[plugin], node_class)
            for name, need in plugins.collect("comfy_cpu_models_for_node", strict=True, node=node):
                spoke[name] = infos[name]
                needs.append(NodeAnswer(workflow.name, node.id, name, need))
    image = ImageRequest(
        target=target,
        class_types=frozenset().union(*(workflow.class_types for workflow in workflows)),
        models=frozenset(answer.need.model_id for answer in needs if answer.need.model_id is not None),
        platform=spec.platform,
        python=spec.python,
    )
    return Answers(
        classes=classes,
        comfyui_classes=frozenset(registry) - frozenset(registry.classes),
        distributions=spoke,
        needs=tuple(needs),
        models=known_models(plugins),
        packs=tuple(plugins.collect("comfy_cpu_node_packs", strict=True)),
        steps=tuple(plugins.collect("comfy_cpu_image_steps", strict=True, image=image)),
        start=tuple(plugins.collect("comfy_cpu_start_script", strict=True, image=image)),
        core=infos["core"],
    )


def _known_class(distribution: Distribution, node_class: NodeClass) -> KnownClass:
    return KnownClass(distribution, node_class.extras)


def make_plan(spec: ImageSpec, target: str, workflows: Sequence[PlannedWorkflow], answers: Answers) -> Plan:
    """Work out what goes into the image.

    Raises:
        WorkflowError: a node's class is not to be had for this target; the error names node and class.
        ModelError: a model cannot be resolved; the error names node, input and value.
        UsageError: two plugins contradict each other; the error names both.
        BuildError: a plugin gave a value that cannot stand in a Dockerfile.
    """
    packs = _node_packs(spec, target, workflows, answers)
    for pack in packs:
        _check_packages(f"node pack {pack.name!r}", pack.apt, pack.requirements)
    steps = _by_name(answers.steps, "image step")
    start = _by_name(answers.start, "start part")
    for plugin, step in steps:
        _check_step(plugin, step)
    requirements = _requirements(spec, target, answers, packs, [step for _, step in steps])
    # Everything that needs torch gets it from the index of CPU builds; others never see that index.
    indexes = dict.fromkeys([*spec.index_urls, *(url for _, step in steps for url in step.index_urls)])
    if target != "engine":
        indexes[_TORCH_INDEX] = None
    return Plan(
        target=target,
        base=spec.base or _default_base(spec, target),
        platform=spec.platform,
        python=spec.python,
        tags=spec.tags,
        workflows=tuple(sorted(workflows, key=lambda workflow: workflow.name)),
        models=plan_models(workflows, answers.needs, answers.models, spec.models),
        node_packs=packs,
        requirements=requirements,
        index_urls=tuple(indexes),
        apt=tuple(sorted({*spec.apt, *(a for _, s in steps for a in s.apt), *(a for p in packs for a in p.apt)})),
        environment={**_merged(steps, "environment", "variable"), **spec.environment},
        files=_merged(steps, "files", "file"),
        commands=tuple(command for _, step in steps for command in step.commands),
        start_environment=_merged(start, "environment", "start variable"),
        start_arguments=tuple(argument for _, part in start for argument in part.arguments),
        comfyui=spec.comfyui if target == "comfyui" else None,
        worker_comfyui=spec.worker_comfyui if target == "worker-comfyui" else None,
        bake=spec.bake,
        instruction_sets=spec.instruction_sets,
        limits=spec.limits,
        price_per_hour_usd=spec.price_per_hour_usd,
    )


def _default_base(spec: ImageSpec, target: str) -> str:
    if target == "worker-comfyui":
        return f"runpod/worker-comfyui:{spec.worker_comfyui.version}-base"
    return f"python:{spec.python}-slim-bookworm"


def _node_packs(
    spec: ImageSpec, target: str, workflows: Sequence[PlannedWorkflow], answers: Answers
) -> tuple[NodePack, ...]:
    """The packs for the classes that neither a plugin nor the ComfyUI brings."""
    by_class: dict[str, tuple[str, NodePack]] = {}
    own = {pack.name for pack in spec.node_packs}
    offered = [("the spec", pack) for pack in spec.node_packs]
    offered += [(plugin, pack) for plugin, pack in _by_name(answers.packs, "node pack") if pack.name not in own]
    for who, pack in offered:
        for class_type in pack.classes:
            other, known = by_class.setdefault(class_type, (who, pack))
            if known != pack and other != "the spec":
                raise UsageError(
                    f"node packs {known.name!r} (of {other}) and {pack.name!r} (of {who}) both bring {class_type!r}",
                    remedy="name the one that you want in a [[node_packs]] of the spec",
                )
    wanted: dict[str, NodePack] = {}
    for workflow in workflows:
        for node in workflow.nodes.values():
            name = node.class_type
            if name in answers.classes or name in answers.comfyui_classes:
                continue
            if target == "engine":
                raise WorkflowError(
                    f"{workflow.name}: node {node.id} ({name}): the engine does not know this class",
                    remedy="choose the target comfyui or worker-comfyui, or install the plugin that brings it",
                    node_id=node.id,
                )
            if name not in by_class:
                raise WorkflowError(
                    f"{workflow.name}: node {node.id} ({name}): no plugin and no node pack brings this class",
                    remedy="add a [[node_packs]] to the spec; if ComfyUI has it itself, set comfyui.object_info",
                    node_id=node.id,
                )
            wanted[by_class[name][1].name] = by_class[name][1]
    return tuple(pack for _, pack in sorted(wanted.items()))


def _requirements(
    spec: ImageSpec, target: str, answers: Answers, packs: Iterable[NodePack], steps: Iterable[ImageStep]
) -> tuple[str, ...]:
    version = answers.core.version
    ours: dict[Distribution, set[str]] = {}
    for known in answers.classes.values():
        # Any one of its extras will do; the first is the one that its author prefers.
        ours.setdefault(known.distribution, set()).update(known.extras[:1])
    for distribution in answers.distributions.values():
        ours.setdefault(distribution, set())
    ours.setdefault(answers.core, set())
    if target == "engine":
        ours.setdefault(Distribution("comfy-cpu-worker", version), set()).update(spec.worker_extras)
    elif target == "comfyui" or spec.worker_comfyui.handler == "comfy-cpu":
        ours.setdefault(Distribution("comfy-cpu-worker", version), set()).update((*spec.worker_extras, "comfyui"))
    if target != "engine":
        ours.setdefault(Distribution("comfy-cpu-nodes", version), set())
        # The engine runs what a ComfyUI runs here.
        ours.pop(Distribution("comfy-cpu-engine", version), None)
    found = {_pinned(distribution, extras) for distribution, extras in ours.items()}
    if target == "worker-comfyui":
        found |= {f"{name}=={number}+cpu" for name, number in zip(TORCH, spec.worker_comfyui.torch, strict=True)}
    found |= {*spec.plugins, *spec.pip}
    found |= {str(Requirement(text)) for pack in packs for text in pack.requirements}
    found |= {str(Requirement(text)) for step in steps for text in step.requirements}
    return tuple(sorted(found))


def _pinned(distribution: Distribution, extras: Iterable[str]) -> str:
    wanted = ",".join(sorted(extras))
    return (
        f"{distribution.name}[{wanted}]=={distribution.version}"
        if wanted
        else f"{distribution.name}=={distribution.version}"
    )


def _by_name(items: Iterable[tuple[str, Any]], what: str) -> list[tuple[str, Any]]:
    """Items in the order of their names.

    Raises:
        UsageError: two have the same name.
    """
    named: dict[str, tuple[str, Any]] = {}
    for plugin, item in items:
        other = named.setdefault(item.name, (plugin, item))
        if other[1] is not item:
            raise UsageError(
                f"plugins {other[0]!r} and {plugin!r} both bring the {what} {item.name!r}",
                remedy="leave one of them out with COMFY_CPU_DISABLED_PLUGINS",
            )
    return [found for _, found in sorted(named.items())]


def _merged(items: Iterable[tuple[str, Any]], attribute: str, what: str) -> dict[str, str]:
    """All entries of a mapping that several items have.

    Raises:
        UsageError: two give different values for the same key.
    """
    merged: dict[str, tuple[str, str]] = {}
    for plugin, item in items:
        for key, value in getattr(item, attribute).items():
            other = merged.setdefault(key, (plugin, value))
            if other[1] != value:
                raise UsageError(
                    f"plugins {other[0]!r} and {plugin!r} set the {what} {key} to different values",
                    remedy="leave one of them out with COMFY_CPU_DISABLED_PLUGINS",
                )
    return {key: value for key, (_, value) in sorted(merged.items())}


def _check_packages(who: str, apt: Iterable[str], requirements: Iterable[str]) -> None:
    for package in apt:
        if not values.APT_PACKAGE.fullmatch(package):
            raise BuildError(f"{who}: {package!r} is no Debian package")
    for text in requirements:
        try:
            Requirement(text)
        except InvalidRequirement as error:
            raise BuildError(f"{who}: {text!r} is no requirement ({error})") from error


def _check_step(plugin: str, step: ImageStep) -> None:
    who = f"plugin {plugin!r}, image step {step.name!r}"
    _check_packages(who, step.apt, step.requirements)
    for url in step.index_urls:
        if not values.URL.fullmatch(url):
            raise BuildError(f"{who}: {url!r} is no URL of an index")
    for path in step.files:
        if not values.is_absolute_path(path) or path in {layout.START_SCRIPT, layout.MANIFEST}:
            raise BuildError(f"{who}: {path!r} is no path that a step may write")
    for command in step.commands:
        if not command or not all(values.is_plain_text(argument) for argument in command):
            raise BuildError(f"{who}: {command!r} is no command of printable arguments")
