from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_builder.model_plan import NodeAnswer, PlannedModel, plan_models
from comfy_cpu_builder.workflows import PlannedWorkflow
from comfy_cpu_core.errors import ModelError
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.workflow import PromptNode


def model(model_id: str, *targets: str, licence: str = "MIT") -> ModelSpec:
    files = tuple(ModelFile(target.rpartition("/")[2], target) for target in targets)
    return ModelSpec(id=model_id, source="hf:OWNER/NAME", files=files, licence=licence)


def workflow(name: str = "cutout", class_type: str = "Loader", **inputs: Any) -> PlannedWorkflow:
    return PlannedWorkflow(name, {"4": PromptNode("4", class_type, inputs)})


def answer(need: ModelNeed, name: str = "cutout") -> NodeAnswer:
    return NodeAnswer(name, "4", "small", need)


SMALL = model("small", "onnx/small.onnx")
WHO = r"cutout: node 4 \(Loader\)"


def test_a_model_says_which_nodes_need_it() -> None:
    answers = [answer(ModelNeed("small")), answer(ModelNeed("small")), answer(ModelNeed("small"), "second")]
    planned = plan_models([workflow(), workflow("second")], answers, {"small": SMALL}, ())
    assert planned == (PlannedModel(SMALL, ("cutout: node 4 (Loader)", "second: node 4 (Loader)")),)


def test_models_come_in_the_order_of_their_ids_and_only_those_that_are_needed() -> None:
    known = {name: model(name, f"{name}.onnx") for name in ("a", "b", "c")}
    planned = plan_models([workflow()], [answer(ModelNeed("c")), answer(ModelNeed("a"))], known, ())
    assert [entry.spec.id for entry in planned] == ["a", "c"]


def test_the_specs_model_goes_before_a_plugins() -> None:
    own = model("small", "onnx/small.onnx", licence="Apache-2.0")
    (planned,) = plan_models([workflow()], [answer(ModelNeed("small"))], {"small": SMALL}, [own])
    assert planned.spec is own


def test_a_model_that_no_plugin_knows() -> None:
    with pytest.raises(ModelError, match=f"{WHO} needs the model 'large', which no plugin knows"):
        plan_models([workflow()], [answer(ModelNeed("large"))], {"small": SMALL}, ())


@pytest.mark.parametrize(
    "value", ["sd15.safetensors", "sub/sd15.ckpt", "sub\\sd15.ckpt", "x.PTH", "x.gguf", "x.onnx", "x.sft", "x.bin"]
)
def test_a_loader_that_no_plugin_speaks_for_is_an_error(value: str) -> None:
    with pytest.raises(ModelError) as caught:
        plan_models([workflow(ckpt_name=value)], [], {"small": SMALL}, ())
    assert str(caught.value) == f"cutout: node 4 (Loader): no known model fits ckpt_name={value!r}"
    assert "[[models]]" in str(caught.value.remedy)


@pytest.mark.parametrize("value", ["photo.png", "a prompt about a .onnx\nmodel.onnx", "", 5, None, ["3", 0]])
def test_other_inputs_are_no_loaders(value: Any) -> None:
    assert plan_models([workflow(text=value)], [], {}, ()) == ()


@pytest.mark.parametrize("value", ["sd15.safetensors", "SD/sd15.safetensors", "SD\\sd15.safetensors"])
def test_the_specs_model_stands_for_a_file_that_no_plugin_knows(value: str) -> None:
    own = model("mine", "checkpoints/SD/sd15.safetensors")
    (planned,) = plan_models([workflow(ckpt_name=value)], [], {}, [own])
    assert planned.spec is own


def test_a_plugins_model_does_not_stand_for_a_file_that_only_has_its_name() -> None:
    with pytest.raises(ModelError, match=r"no known model fits ckpt_name='small\.onnx'"):
        plan_models([workflow(ckpt_name="small.onnx")], [], {"small": SMALL}, ())


def test_the_file_that_the_class_implies_is_accounted_for() -> None:
    (planned,) = plan_models([workflow(file="small.onnx")], [answer(ModelNeed("small"))], {"small": SMALL}, ())
    assert planned.spec is SMALL


def test_a_need_that_no_known_model_meets_is_met_by_its_place_in_the_tree() -> None:
    need = ModelNeed(None, "model", "large", reason="ask its author for it", target="onnx/large.onnx")
    own = model("mine", "onnx/large.onnx")
    assert plan_models([workflow(model="large")], [answer(need)], {}, [own])[0].spec is own
    elsewhere = model("mine", "elsewhere/large.onnx")
    with pytest.raises(ModelError) as caught:
        plan_models([workflow(model="large")], [answer(need)], {}, [elsewhere])
    assert str(caught.value) == (
        "cutout: node 4 (Loader): no known model fits model='large' (onnx/large.onnx in the model tree): "
        "ask its author for it"
    )
