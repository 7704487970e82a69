"""Which models a workflow needs, and whether they are there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pluggy
import pytest

from comfy_cpu_core import hookspecs
from comfy_cpu_core.errors import ModelError, ModelMissing, UsageError
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.needs import (
    NodeNeed,
    find_model_file,
    known_models,
    missing_models,
    models_for_prompt,
    require_models,
)
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.workflow import PromptNode

CUTOUT = ModelSpec("cutout", "hf:a/cutout", (ModelFile("a", "x/a.onnx"), ModelFile("b", "x/b.json")), "MIT")
OTHER = ModelSpec("other", "hf:a/other", (ModelFile("a", "y/a.onnx"),), "MIT")


def plugin(models: Iterable[ModelSpec] = (), needs: Iterable[tuple[str, ModelNeed]] = ()) -> object:
    @hookimpl
    def comfy_cpu_models() -> Iterable[ModelSpec]:
        return models

    @hookimpl
    def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:
        return [need for class_type, need in needs if class_type == node.class_type]

    return SimpleNamespace(comfy_cpu_models=comfy_cpu_models, comfy_cpu_models_for_node=comfy_cpu_models_for_node)


def plugins(**named: object) -> Plugins:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, item in named.items():
        manager.register(item, name=name)
    return Plugins(manager)


NODES = [PromptNode("1", "LoadImage"), PromptNode("7:2", "Cut"), PromptNode("9", "Both")]
CUT = ("Cut", ModelNeed("cutout"))
BOTH = ("Both", ModelNeed("other"))
FAMILY = plugin([CUTOUT, OTHER], [CUT, BOTH, ("Both", ModelNeed("cutout"))])


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    return ModelTree(tmp_path / "my models")


def put(tree: ModelTree, *targets: str) -> None:
    for target in targets:
        tree.path(target).parent.mkdir(parents=True, exist_ok=True)
        tree.path(target).touch()


def test_known_models_by_id() -> None:
    assert known_models(plugins(b=plugin([OTHER]), a=plugin([CUTOUT]))) == {"cutout": CUTOUT, "other": OTHER}
    with pytest.raises(UsageError, match="plugins 'a' and 'b' both bring the model 'other'"):
        known_models(plugins(b=plugin([OTHER]), a=plugin([OTHER])))


def test_models_for_prompt() -> None:
    assert models_for_prompt(NODES, plugins(family=FAMILY)) == [
        NodeNeed("7:2", "Cut", ModelNeed("cutout"), CUTOUT),
        NodeNeed("9", "Both", ModelNeed("other"), OTHER),
        NodeNeed("9", "Both", ModelNeed("cutout"), CUTOUT),
    ]


def test_two_plugins_that_name_the_same_model() -> None:
    both = plugins(family=FAMILY, more=plugin(needs=[CUT]))
    assert [need.node_id for need in models_for_prompt(NODES[:2], both)] == ["7:2"]


def test_a_model_that_no_plugin_knows() -> None:
    with pytest.raises(ModelError, match=r"node 7:2 \(Cut\) needs the model 'cutout', as plugin 'a' says, but no"):
        models_for_prompt(NODES, plugins(a=plugin(needs=[CUT])))


def test_missing_models(tree: ModelTree) -> None:
    needs = models_for_prompt(NODES, plugins(family=FAMILY))
    put(tree, "y/a.onnx", "x/b.json")
    missing = missing_models(needs, tree)
    assert [(m.need.node_id, m.files) for m in missing] == [("7:2", CUTOUT.files[:1]), ("9", CUTOUT.files[:1])]
    put(tree, "x/a.onnx")
    assert missing_models(needs, tree) == []


def test_require_models(tree: ModelTree) -> None:
    family = plugins(family=FAMILY)
    with pytest.raises(ModelMissing) as raised:
        require_models(NODES, family, tree)
    assert str(raised.value) == (
        f"node 7:2 (Cut) needs model cutout: x/a.onnx, x/b.json not in the model tree {tree.root} (and 2 more)"
    )
    assert raised.value.remedy == f"fetch it: `comfy-cpu models fetch cutout other --models '{tree.root}'`"
    put(tree, "y/a.onnx", "x/a.onnx", "x/b.json")
    assert require_models(NODES, family, tree) == models_for_prompt(NODES, family)


def test_a_run_may_begin_without_a_model_that_its_node_fetches(tree: ModelTree) -> None:
    family = plugins(family=plugin([CUTOUT, OTHER], [("Cut", ModelNeed("cutout", fetched_by_node=True)), BOTH]))
    (need,) = require_models(NODES[:2], family, tree)
    assert need.spec == CUTOUT
    assert [missing.need.spec for missing in missing_models([need], tree)] == [CUTOUT], "it is missing all the same"
    with pytest.raises(ModelMissing, match="other"):
        require_models(NODES, family, tree)


def test_require_a_model_that_nobody_has(tree: ModelTree) -> None:
    need = ModelNeed(None, "variant", "HR", "choose one of general, portrait")
    family = plugins(family=plugin(needs=[("Cut", need)]))
    with pytest.raises(ModelMissing, match=r"node 7:2 \(Cut\): no known model fits variant='HR'") as raised:
        require_models(NODES, family, tree)
    assert raised.value.remedy == "choose one of general, portrait"


def test_a_file_that_the_user_supplies_meets_a_need_that_no_model_meets(tree: ModelTree) -> None:
    need = ModelNeed(None, "variant", "HR", "export it to ONNX and put it there", "hr/HR.onnx")
    family = plugins(family=plugin(needs=[("Cut", need)]))
    with pytest.raises(ModelMissing) as raised:
        require_models(NODES, family, tree)
    assert str(raised.value) == f"node 7:2 (Cut): model file hr/HR.onnx is not in the model tree {tree.root}"
    assert raised.value.remedy == "export it to ONNX and put it there"
    put(tree, "hr/HR.onnx")
    assert require_models(NODES, family, tree) == models_for_prompt(NODES, family)


@pytest.mark.parametrize("target", ["../x.onnx", "/x.onnx", "a/../../x", "", "a\\b"])
def test_such_a_file_lies_in_the_tree(target: str) -> None:
    with pytest.raises(ValueError, match="not a path inside the model tree"):
        ModelNeed(None, "variant", "HR", "", target)


def test_a_file_may_lie_in_another_place(tree: ModelTree) -> None:
    file = ModelFile("a.gguf", "llm/a.gguf", also=("LLM/a.gguf", "llama/a.gguf"))
    spec = ModelSpec("llama", "hf:somebody/llama", licence="MIT", files=(file,))
    assert find_model_file(spec, file, tree) is None
    put(tree, "llama/a.gguf")
    assert find_model_file(spec, file, tree) == tree.path("llama/a.gguf")
    put(tree, "llm/a.gguf")
    assert find_model_file(spec, file, tree) == tree.path("llm/a.gguf"), "the place where it goes is the first"


def test_the_tree_goes_before_the_installed_package(
    tree: ModelTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site" / "weights_for_needs"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "a").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    spec = ModelSpec("p", "package:weights_for_needs", (ModelFile("a", "z/a"), ModelFile("b", "z/b")), "MIT")

    assert find_model_file(spec, spec.files[0], tree) == folder / "a"
    assert find_model_file(spec, spec.files[1], tree) is None
    put(tree, "z/a")
    assert find_model_file(spec, spec.files[0], tree) == tree.path("z/a")
    assert find_model_file(OTHER, OTHER.files[0], tree) is None
