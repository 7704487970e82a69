"""The four nodes: their contract, and all fifteen tasks from end to end on the tiny model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pluggy
import pytest

from comfy_cpu_core import hookspecs
from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import Interrupted, ModelError, ModelMissing, NodeError
from comfy_cpu_core.fetchers import FetchedFile, FetcherType, ResolvedModel
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.results import Progress
from comfy_cpu_core.workflow import PromptNode
from comfy_cpu_nodes.nodes.florence2 import Florence2Run, TextInputError
from comfy_cpu_nodes.nodes.florence2_loaders import (
    DownloadAndLoadFlorence2Lora,
    DownloadAndLoadFlorence2Model,
    Florence2ModelLoader,
)
from comfy_cpu_nodes.ops.florence import TASKS

StandIn = Callable[..., Path]

BASE = "Florence-2-base"
BOXES = "car<loc_100><loc_200><loc_500><loc_600>dog<loc_600><loc_600><loc_900><loc_900>"
#: What the tiny model is taught to say, by kind of task.
SAYS = {
    "text": "a red car, and a dog",
    "boxes": BOXES,
    "proposals": "<loc_100><loc_200><loc_500><loc_600><loc_600><loc_600><loc_900><loc_900>",
    "grounding": f"{BOXES}it<loc_1><loc_2><loc_3><loc_4>",
    "polygons": "<loc_100><loc_100><loc_500><loc_100><loc_500><loc_500><loc_100><loc_500>",
    "quads": "EXIT<loc_100><loc_100><loc_500><loc_100><loc_500><loc_500><loc_100><loc_500>",
}


@pytest.fixture
def install(run: RunContext, stand_in: StandIn) -> Callable[..., Path]:
    """Puts a stand-in into the model tree."""

    def put(name: str = BASE, **settings: Any) -> Path:
        return Path(shutil.copytree(stand_in(**settings), run.models.path(f"LLM/{name}")))

    return put


def batch(count: int = 1, height: int = 50, width: int = 100) -> np.ndarray:
    """IMAGE [B,H,W,3]"""
    return np.random.default_rng(3).random((count, height, width, 3), np.float32)


def load(**inputs: Any) -> Any:
    (model,) = Florence2ModelLoader().loadmodel(**{"model": BASE, "precision": "fp32", **inputs})
    return model


def encode(model: Any, task: str, image: Any = None, **inputs: Any) -> tuple[Any, Any, Any, Any]:
    settings = {"text_input": "", "fill_mask": True, "max_new_tokens": 80, **inputs}
    return Florence2Run().encode(batch() if image is None else image, model, task=task, **settings)


# The contract.

_PRECISION = (["fp16", "bf16", "fp32"], {"default": "fp16"})
_ATTENTION = (["flash_attention_2", "sdpa", "eager"], {"default": "sdpa"})
_MODELS = [
    "microsoft/Florence-2-base",
    "microsoft/Florence-2-base-ft",
    "microsoft/Florence-2-large",
    "microsoft/Florence-2-large-ft",
    "HuggingFaceM4/Florence-2-DocVQA",
    "thwri/CogFlorence-2.1-Large",
    "thwri/CogFlorence-2.2-Large",
    "gokaygokay/Florence-2-SD3-Captioner",
    "gokaygokay/Florence-2-Flux-Large",
    "MiaoshouAI/Florence-2-base-PromptGen-v1.5",
    "MiaoshouAI/Florence-2-large-PromptGen-v1.5",
    "MiaoshouAI/Florence-2-base-PromptGen-v2.0",
    "MiaoshouAI/Florence-2-large-PromptGen-v2.0",
    "PJMixers-Images/Florence-2-base-Castollux-v0.5",
]
_ADAPTER = "NikshepShetty/Florence-2-pixelprose"
_TASKS = (
    "region_caption dense_region_caption region_proposal caption detailed_caption more_detailed_caption "
    "caption_to_phrase_grounding referring_expression_segmentation ocr ocr_with_region docvqa prompt_gen_tags "
    "prompt_gen_mixed_caption prompt_gen_analyze prompt_gen_mixed_caption_plus"
)
CONTRACT: dict[type, tuple[str, list[Any], list[Any], tuple[str, ...], tuple[str, ...]]] = {
    DownloadAndLoadFlorence2Model: (
        "loadmodel",
        [("model", _MODELS, {"default": _MODELS[0]}), ("precision", *_PRECISION), ("attention", *_ATTENTION)],
        [("lora", "PEFTLORA", {}), ("convert_to_safetensors", "BOOLEAN", {"default": False})],
        ("FL2MODEL",),
        ("florence2_model",),
    ),
    Florence2ModelLoader: (
        "loadmodel",
        [("model", [], {}), ("precision", *_PRECISION), ("attention", *_ATTENTION)],
        [("lora", "PEFTLORA", {}), ("convert_to_safetensors", "BOOLEAN", {"default": False})],
        ("FL2MODEL",),
        ("florence2_model",),
    ),
    DownloadAndLoadFlorence2Lora: (
        "loadmodel",
        [("model", [_ADAPTER], {"default": _ADAPTER})],
        [],
        ("PEFTLORA",),
        ("lora",),
    ),
    Florence2Run: (
        "encode",
        [
            ("image", "IMAGE", {}),
            ("florence2_model", "FL2MODEL", {}),
            ("text_input", "STRING", {"default": "", "multiline": True}),
            ("task", _TASKS.split(), {"default": "region_caption"}),
            ("fill_mask", "BOOLEAN", {"default": True}),
        ],
        [
            ("keep_model_loaded", "BOOLEAN", {"default": False}),
            ("max_new_tokens", "INT", {"default": 1024, "min": 1, "max": 4096}),
            ("num_beams", "INT", {"default": 3, "min": 1, "max": 64}),
            ("do_sample", "BOOLEAN", {"default": True}),
            ("output_mask_select", "STRING", {"default": ""}),
            ("seed", "INT", {"default": 1, "min": 1, "max": 0xFFFFFFFFFFFFFFFF}),
        ],
        ("IMAGE", "MASK", "STRING", "JSON"),
        ("image", "mask", "caption", "data"),
    ),
}


@pytest.mark.parametrize("node", CONTRACT, ids=lambda node: node.__name__)
def test_the_contract(node: Any, run: RunContext) -> None:
    function, required, optional, outputs, names = CONTRACT[node]
    declared = NodeSignature.from_class(node.__name__, node)
    found: dict[str, list[Any]] = {"required": [], "optional": []}
    for spec in declared.inputs:
        options = {key: value for key, value in spec.options.items() if key != "tooltip"}
        found[spec.section].append((spec.name, spec.type if spec.choices is None else list(spec.choices), options))
    assert found == {"required": required, "optional": optional}
    assert (declared.outputs, declared.output_names, node.FUNCTION) == (outputs, names, function)
    assert callable(getattr(node, function))


# All tasks.


@pytest.mark.parametrize("task", TASKS)
def test_every_task(task: str, install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    kind = TASKS[task].kind
    install(says=SAYS[kind])
    text = "a red car" if TASKS[task].takes_text else ""
    image, mask, caption, data = encode(load(), task, text_input=text)
    assert image.dtype == mask.dtype == np.float32
    if kind == "text":
        assert (image.shape, mask.shape, data) == ((1, 64, 64, 3), (1, 64, 64), [])
        assert not image.any()
        assert not mask.any()
        assert caption == "a red car, and a dog"
        return
    assert (image.shape, mask.shape) == ((1, 50, 100, 3), (1, 50, 100))
    before = np.trunc(batch() * 255) / 255
    changed = (np.abs(image - before) > 1e-6).any(axis=-1)[0]
    assert changed[20:30, 10:50].any()
    assert not changed[47:, :].any()
    first, second = [10.05, 10.025, 50.05, 30.025], [60.05, 30.025, 90.05, 45.025]
    expected = np.zeros((50, 100), np.float32)
    match kind:
        case "boxes":
            assert caption == SAYS[kind]
            assert np.allclose(data, [[first, second]], atol=1e-4)
        case "proposals":
            assert caption == SAYS[kind]
            assert np.allclose(data, [[first, second]], atol=1e-4)
        case "grounding":
            assert caption == SAYS[kind]
            ((found, labels),) = [(each["bboxes"], each["labels"]) for each in data]
            assert np.allclose(found, [first, second], atol=1e-4)
            assert labels == ["car", "dog"]
        case "polygons":
            assert caption == SAYS[kind]
            assert data == []
        case "quads":
            assert caption == "\nEXIT\n"
            ((label, box),) = [(each["label"], each["box"]) for each in data]
            assert label == "EXIT"
            assert np.allclose(box, [0.1005, 0.1005, 0.5005, 0.1005, 0.5005, 0.5005, 0.1005, 0.5005], atol=1e-6)
    if kind in {"polygons", "quads"}:
        expected[5:26, 10:51] = 1
    else:
        expected[10:31, 10:51] = 1
        expected[30:46, 60:91] = 1
    assert np.array_equal(mask[0], expected)


@pytest.mark.parametrize(
    ("inputs", "left", "right"),
    [
        ({"output_mask_select": "0"}, True, False),
        ({"output_mask_select": "dog"}, False, True),
        ({"output_mask_select": "car,1"}, True, True),
        ({"output_mask_select": "bird"}, False, False),
    ],
)
def test_which_boxes_make_the_mask(
    inputs: dict[str, Any], left: bool, right: bool, install: Callable[..., Path]
) -> None:
    install(says=BOXES)
    _, mask, _, _ = encode(load(), "region_caption", **inputs)
    assert (bool(mask[0, 20, 20]), bool(mask[0, 40, 70])) == (left, right)


def test_no_mask_of_boxes_without_fill_mask(install: Callable[..., Path]) -> None:
    install(says=BOXES)
    image, mask, _, _ = encode(load(), "region_caption", fill_mask=False)
    assert image.shape == (1, 50, 100, 3)
    assert mask.shape == (1, 64, 64)


def test_a_batch(install: Callable[..., Path]) -> None:
    install()
    model, images = load(), batch(2)
    together = encode(model, "caption", images, max_new_tokens=12)
    alone = [encode(model, "caption", image[np.newaxis], max_new_tokens=12) for image in images]
    assert together[2] == [caption for _, _, caption, _ in alone]
    assert together[2][0] != together[2][1]
    assert together[0].shape == (1, 64, 64, 3)
    image, mask, captions, data = encode(model, "region_caption", images, max_new_tokens=12)
    assert image.shape == (2, 50, 100, 3)
    assert mask.shape == (2, 50, 100)
    assert (len(captions), len(data)) == (2, 2)


def test_the_seed_decides(install: Callable[..., Path]) -> None:
    install()
    model = load()
    captions = [encode(model, "caption", seed=seed, max_new_tokens=16)[2] for seed in (1, 1, 2**64 - 1)]
    assert captions[0] == captions[1] != captions[2]
    certain = [encode(model, "caption", seed=seed, do_sample=False, max_new_tokens=16)[2] for seed in (1, 2)]
    assert certain[0] == certain[1]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures(channels: int, install: Callable[..., Path]) -> None:
    install(says=BOXES)
    images = np.full((1, 30, 40, channels), 0.5, np.float32)
    image, _, caption, _ = encode(load(), "region_caption", images)
    assert image.shape == (1, 30, 40, 3)
    assert caption == BOXES


def test_torch_tensors_come_back_as_such(libraries: Any, install: Callable[..., Path]) -> None:
    torch = libraries.torch
    install(says=BOXES)
    for task, shape in (("region_caption", (1, 50, 100)), ("caption", (1, 64, 64))):
        image, mask, _, _ = encode(load(), task, torch.from_numpy(batch()))
        assert isinstance(image, torch.Tensor)
        assert isinstance(mask, torch.Tensor)
        assert tuple(mask.shape) == shape
        assert tuple(image.shape) == (*shape, 3)


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if not task.takes_text])
def test_text_where_none_is_taken(task: str, install: Callable[..., Path]) -> None:
    install()
    with pytest.raises(ValueError, match=f"not for {task}") as caught:
        encode(load(), task, text_input="a cat")
    assert isinstance(caught.value, TextInputError)
    assert (caught.value.node_id, caught.value.exit_code) == ("8", 6)


def test_a_document_needs_a_question(install: Callable[..., Path]) -> None:
    install()
    with pytest.raises(TextInputError, match="docvqa needs a question"):
        encode(load(), "docvqa", text_input=" ")


def test_a_task_that_does_not_exist(install: Callable[..., Path]) -> None:
    install()
    with pytest.raises(NodeError, match="task 'sing'"):
        encode(load(), "sing")


def test_somebody_elses_model() -> None:
    with pytest.raises(NodeError, match="a dict is no Florence-2") as caught:
        encode({"model": None, "processor": None}, "caption")
    assert caught.value.remedy is not None
    assert "loader" in caught.value.remedy


def test_progress_and_interrupt(install: Callable[..., Path], run: RunContext, events: list[Progress]) -> None:
    install(says="four words and no more")
    model = load()
    encode(model, "caption", batch(2))
    steps = [(event.value, event.total) for event in events if event.kind == "step"]
    values = [value for value, _ in steps]
    assert values == sorted(values)
    assert steps[-1] == (160, 160)
    assert 40 < len(steps) < 80, "one for each token, and one for what is left of each answer"

    def stop() -> None:
        raise Interrupted("enough")

    run.check = stop
    with pytest.raises(Interrupted, match="enough"):
        encode(model, "caption", batch(1) / 2)


# The loaders.


class Shelf:
    """A source whose files lie in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fetched: list[str] = []

    def resolve(self, spec: ModelSpec) -> ResolvedModel:
        return ResolvedModel("f" * 40, spec.files)

    def fetch(self, spec: ModelSpec, resolved: Any, file: ModelFile, staging: Path, progress: Any) -> FetchedFile:
        self.fetched.append(file.target)
        progress(file.target, 1, 1)
        return FetchedFile(self.directory / file.path, move=False)


@pytest.fixture
def shelf(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A stand-in that can be fetched, under the name that workflows know."""
    source = Shelf(stand_in(says="fetched"))
    names = ("config.json", "tokenizer.json", "model.safetensors", "generation_config.json", "preprocessor_config.json")
    spec = ModelSpec("tiny", "shelf:x", tuple(ModelFile(name, f"LLM/{BASE}/{name}") for name in names), "MIT")

    class Plugin:
        @hookimpl
        def comfy_cpu_models(self) -> Iterable[ModelSpec]:
            return [spec]

        @hookimpl
        def comfy_cpu_models_for_node(self, node: PromptNode) -> Iterable[ModelNeed]:
            known = node.class_type != "DownloadAndLoadFlorence2Lora" and node.widget("model") in {
                BASE,
                f"microsoft/{BASE}",
            }
            return [ModelNeed("tiny", "model", BASE, fetched_by_node=True)] if known else []

        @hookimpl
        def comfy_cpu_fetchers(self) -> Iterable[FetcherType]:
            return [FetcherType("shelf", open=lambda: source, online=False)]

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin(), name="shelf")
    monkeypatch.setattr("comfy_cpu_core.plugins.get_plugins", lambda: Plugins(manager))
    return source


def test_the_list_of_models_is_the_folder(run: RunContext) -> None:
    assert Florence2ModelLoader.INPUT_TYPES()["required"]["model"][0] == []
    for name in ("b", "a/nested"):
        run.models.path(f"LLM/{name}").mkdir(parents=True)
    (run.models.path("LLM") / "language.gguf").touch()
    assert Florence2ModelLoader.INPUT_TYPES()["required"]["model"][0] == ["a", "b"]


def test_a_name_that_is_not_in_the_list_is_let_through() -> None:
    assert Florence2ModelLoader.VALIDATE_INPUTS(model=BASE) is True
    assert Florence2ModelLoader.VALIDATE_INPUTS(model=None) is True
    assert Florence2ModelLoader.VALIDATE_INPUTS(model=7) == "the name of a directory is needed"


def test_a_missing_model_says_how_to_get_it(run: RunContext, shelf: Shelf) -> None:
    with pytest.raises(ModelMissing, match=f"LLM/{BASE} is not there") as caught:
        load()
    assert caught.value.remedy is not None
    assert "comfy-cpu models fetch tiny" in caught.value.remedy
    assert str(run.models.root) in caught.value.remedy


def test_a_missing_model_that_nobody_knows(run: RunContext) -> None:
    with pytest.raises(ModelMissing) as caught:
        load(model="my-own")
    assert caught.value.remedy == "put config.json, tokenizer.json and model.safetensors into models/LLM/my-own"


@pytest.mark.parametrize("name", ["", "..", "a/..", "..\\secrets", "C:\\models\\x"])
def test_a_name_that_leads_out_of_the_folder(name: str, run: RunContext) -> None:
    with pytest.raises(NodeError, match="is no name of a directory"):
        load(model=name)


def test_a_pickle(install: Callable[..., Path], shelf: Shelf) -> None:
    path = install()
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    for convert in (False, True):
        with pytest.raises(ModelError, match="only as a pickle") as caught:
            load(convert_to_safetensors=convert)
        assert caught.value.remedy is not None
        assert "comfy-cpu models fetch tiny" in caught.value.remedy


@pytest.mark.parametrize(
    ("hardware", "wanted", "used", "warned"),
    [
        (True, "fp16", "bf16", True),
        (True, "bf16", "bf16", False),
        (True, "fp32", "f32", False),
        (False, "fp16", "f32", True),
        (False, "bf16", "f32", True),
    ],
)
def test_the_precision_is_chosen_for_this_cpu(
    hardware: bool,
    wanted: str,
    used: str,
    warned: bool,
    install: Callable[..., Path],
    run: RunContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = SimpleNamespace(has_bf16=hardware, threads=1)
    monkeypatch.setattr("comfy_cpu_nodes.runtimes.florence.get_resources", lambda: found)
    install()
    assert load(precision=wanted).precision == used
    assert any(f"precision {wanted}" in warning for warning in run.warnings) is warned
    assert [use.precision for use in run.model_uses] == [used]


@pytest.mark.parametrize(
    ("wanted", "used", "warned"),
    [("flash_attention_2", "sdpa", True), ("sdpa", "sdpa", False), ("eager", "eager", False)],
)
def test_the_attention(wanted: str, used: str, warned: bool, install: Callable[..., Path], run: RunContext) -> None:
    install()
    assert load(attention=wanted).attention == used
    assert any("flash_attention_2" in warning for warning in run.warnings) is warned


def test_a_model_that_was_replaced_counts_as_changed(install: Callable[..., Path]) -> None:
    path = install()
    before = Florence2ModelLoader.IS_CHANGED(model=BASE, precision="fp16", attention="sdpa")
    assert Florence2ModelLoader.IS_CHANGED(model=BASE, precision="fp16", attention="sdpa") == before
    (path / "config.json").write_text((path / "config.json").read_text() + " ")
    assert Florence2ModelLoader.IS_CHANGED(model=BASE, precision="fp16", attention="sdpa") != before


# Fetching.


def test_a_model_is_fetched_once(shelf: Shelf, run: RunContext) -> None:
    for _ in range(2):
        (model,) = DownloadAndLoadFlorence2Model().loadmodel(f"microsoft/{BASE}", "fp32")
        assert encode(model, "caption")[2] == "fetched"
    assert len(shelf.fetched) == 5
    assert run.models.has(f"LLM/{BASE}/model.safetensors")


def test_a_fetch_that_was_cut_off_is_finished(shelf: Shelf, run: RunContext) -> None:
    DownloadAndLoadFlorence2Model().loadmodel(f"microsoft/{BASE}", "fp32")
    run.models.path(f"LLM/{BASE}/model.safetensors").unlink()
    DownloadAndLoadFlorence2Model().loadmodel(f"microsoft/{BASE}", "fp32")
    assert shelf.fetched[5:] == [f"LLM/{BASE}/model.safetensors"]


def test_a_fetch_can_be_interrupted(shelf: Shelf, run: RunContext) -> None:
    def stop() -> None:
        raise Interrupted("enough")

    run.check = stop
    with pytest.raises(Interrupted, match="enough"):
        DownloadAndLoadFlorence2Model().loadmodel(f"microsoft/{BASE}", "fp32")


def test_a_model_that_nobody_can_fetch(shelf: Shelf, run: RunContext) -> None:
    with pytest.raises(ModelMissing, match="no plugin knows where to fetch it"):
        DownloadAndLoadFlorence2Model().loadmodel("thwri/CogFlorence-2.1-Large")
    with pytest.raises(ModelMissing, match="no plugin knows where to fetch it"):
        DownloadAndLoadFlorence2Lora().loadmodel("NikshepShetty/Florence-2-pixelprose")
    assert shelf.fetched == []
