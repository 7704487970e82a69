"""The nodes' interfaces, written out by hand: existing workflows depend on every word of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_nodes.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, NODES

PROV = ["CPU", "CUDA", "DirectML"]
BGC = ["none", "white", "black", "red", "green", "blue", "custom"]
I4 = ["bilinear", "bicubic", "nearest", "lanczos"]
I3 = ["lanczos", "bicubic", "bilinear"]
MODE = ["soft", "aggressive"]

REQ, OPT, HID = "required", "optional", "hidden"
IMAGE = ("IMAGE", {})


def combo(options: list[str], default: str) -> tuple[Any, dict[str, Any]]:
    return options, {"default": default}


def number(kind: str, default: float, low: float, high: float, step: float) -> tuple[Any, dict[str, Any]]:
    return kind, {"default": default, "min": low, "max": high, "step": step}


def plain(kind: str, default: object) -> tuple[Any, dict[str, Any]]:
    return kind, {"default": default}


LABELS = [
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
]

FINISHING: list[tuple[str, str, tuple[Any, dict[str, Any]]]] = [
    (OPT, "background_color", combo(BGC, "none")),
    (OPT, "custom_hex_color", plain("STRING", "#FFFFFF")),
    (OPT, "sensitivity", number("FLOAT", 1, 0, 1, 0.01)),
    (OPT, "mask_blur", number("INT", 0, 0, 64, 1)),
    (OPT, "mask_offset", number("INT", 0, -64, 64, 1)),
]
HIDDEN = [(HID, "unique_id", ("UNIQUE_ID", {})), (HID, "prompt", ("PROMPT", {}))]
SIDE = number("INT", 1024, 64, 8192, 64)

# class_type: FUNCTION, whether it is an output node, inputs in order, outputs.
CONTRACT: dict[str, tuple[str, bool, list[tuple[str, str, tuple[Any, dict[str, Any]]]], list[tuple[str, str]]]] = {
    "BEN2_ONNX_RemoveBg": (
        "remove_background",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "provider", combo(PROV, "CPU")),
            *FINISHING,
        ],
        [("image", "IMAGE"), ("mask", "MASK")],
    ),
    "BiRefNet_ONNX_RemoveBg": (
        "remove_background",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "model_variant", combo(["general", "portrait", "general-lite", "matting"], "general")),
            (REQ, "provider", combo(PROV, "CPU")),
            *FINISHING,
            (OPT, "process_resolution", number("INT", 1024, 512, 2048, 64)),
        ],
        [("image", "IMAGE"), ("mask", "MASK")],
    ),
    "BiRefNet_HR_RemoveBg": (
        "remove_background",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "model_variant", combo(["BiRefNet_HR", "BiRefNet_HR-matting"], "BiRefNet_HR")),
            *FINISHING,
            (OPT, "process_resolution", number("INT", 2048, 1024, 2560, 256)),
            (OPT, "use_fp16", plain("BOOLEAN", True)),
        ],
        [("image", "IMAGE"), ("mask", "MASK")],
    ),
    "SmartResizeForModel": (
        "smart_resize",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "target_model", combo(["1024 (BEN2/BiRefNet)", "2048 (BiRefNet_HR)"], "2048 (BiRefNet_HR)")),
            (REQ, "resize_mode", combo(["smart", "always_resize", "only_if_needed"], "smart")),
            (OPT, "interpolation", combo(I3, "lanczos")),
        ],
        [("image", "IMAGE"), ("original_width", "INT"), ("original_height", "INT")],
    ),
    "RestoreOriginalSize": (
        "restore_size",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "original_width", number("INT", 1024, 1, 16384, 1)),
            (REQ, "original_height", number("INT", 1024, 1, 16384, 1)),
            (OPT, "interpolation", combo(I3, "lanczos")),
        ],
        [("image", "IMAGE")],
    ),
    "ImageResizeForProcessing": (
        "resize_image",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "target_resolution", combo(["512", "768", "1024", "1280", "1536", "2048", "custom"], "1024")),
            (OPT, "custom_width", SIDE),
            (OPT, "custom_height", SIDE),
            (OPT, "resize_mode", combo(["stretch", "fit", "fill"], "fit")),
            (OPT, "interpolation", combo(I4, "bilinear")),
        ],
        [("image", "IMAGE")],
    ),
    "ImageResizeToReference": (
        "resize_to_reference",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "scale_mode", combo(["reference", "scale_factor", "dimensions"], "reference")),
            (OPT, "reference_image", IMAGE),
            (OPT, "scale_factor", number("FLOAT", 1, 0.1, 8, 0.1)),
            (OPT, "target_width", SIDE),
            (OPT, "target_height", SIDE),
            (OPT, "interpolation", combo(I4, "lanczos")),
        ],
        [("image", "IMAGE")],
    ),
    "ImageScaleByFactor": (
        "scale_image",
        False,
        [
            (REQ, "image", IMAGE),
            (REQ, "scale_factor", combo(["0.25x", "0.5x", "0.75x", "1x", "1.25x", "1.5x", "2x", "3x", "4x"], "1x")),
            (REQ, "interpolation", combo(I4, "lanczos")),
        ],
        [("image", "IMAGE")],
    ),
    "FreeVRAM": (
        "free_vram",
        True,
        [(OPT, "mode", combo(MODE, "soft")), (OPT, "unload_models", plain("BOOLEAN", False)), *HIDDEN],
        [],
    ),
    "FreeVRAMAutomatic": ("auto_free_vram", True, [(OPT, "trigger", plain("BOOLEAN", True)), *HIDDEN], []),
    "FreeVRAMInline": (
        "free_vram_inline",
        False,
        [(REQ, "image", IMAGE), (OPT, "mode", combo(MODE, "soft")), (OPT, "unload_models", plain("BOOLEAN", False))],
        [("image", "IMAGE")],
    ),
    "VRAMMonitor": (
        "monitor_vram",
        True,
        [(OPT, "show_details", plain("BOOLEAN", True)), *HIDDEN],
        [("vram_info", "STRING")],
    ),
    "VRAMMonitorInline": (
        "monitor_vram_inline",
        False,
        [(REQ, "image", IMAGE), (OPT, "show_details", plain("BOOLEAN", True)), (OPT, "prefix", plain("STRING", ""))],
        [("image", "IMAGE"), ("vram_info", "STRING")],
    ),
    "SaveImageNoMetadata": (
        "save_images",
        True,
        [(REQ, "images", IMAGE), (REQ, "filename_prefix", plain("STRING", "Untitled image"))],
        [],
    ),
    "ShowText|pysssss": (
        "notify",
        True,
        [
            (REQ, "text", ("STRING", {"forceInput": True})),
            (HID, "unique_id", ("UNIQUE_ID", {})),
            (HID, "extra_pnginfo", ("EXTRA_PNGINFO", {})),
        ],
        [("STRING", "STRING")],
    ),
    "NudeNetSafetyChecker": (
        "check_nudity",
        False,
        [(REQ, "image", IMAGE), (OPT, "threshold", number("FLOAT", 0.6, 0, 1, 0.05))],
        [("json", "STRING"), ("is_nsfw", "BOOLEAN"), ("max_score", "FLOAT")],
    ),
    "NudenetModelLoader": (
        "load_model",
        False,
        [(REQ, "model", (["320n.onnx", "640m.onnx"], {}))],
        [("NUDENET_MODEL", "NUDENET_MODEL")],
    ),
    "FilterdLabel": (
        "filter_labels",
        False,
        [(REQ, label, plain("BOOLEAN", True)) for label in LABELS],
        [("FILTERED_LABELS", "FILTERED_LABELS")],
    ),
    "ApplyNudenet": (
        "apply_nudenet",
        False,
        [
            (REQ, "nudenet_model", ("NUDENET_MODEL", {})),
            (REQ, "image", IMAGE),
            (REQ, "censor_method", (["pixelate", "blur", "gaussian_blur", "image"], {})),
            (REQ, "filtered_labels", ("FILTERED_LABELS", {})),
            (REQ, "min_score", number("FLOAT", 0.2, 0, 1, 0.01)),
            (REQ, "blocks", number("INT", 3, 1, 100, 1)),
            (REQ, "block_count_scaling", (["fixed", "fewer_when_small", "fewer_when_large"], {})),
            (OPT, "overlay_image", IMAGE),
            (OPT, "overlay_strength", number("FLOAT", 1, 0, 10, 0.1)),
            (OPT, "alpha_mask", ("MASK", {})),
        ],
        [("IMAGE", "IMAGE")],
    ),
}

# What we add to what the world knows.
OWN = {"BEN2_ONNX_RawMask"}


def test_nothing_is_missing() -> None:
    assert set(NODE_CLASS_MAPPINGS) >= set(CONTRACT) | OWN
    assert set(NODE_DISPLAY_NAME_MAPPINGS) == set(NODE_CLASS_MAPPINGS)
    assert len(NODES) == len(NODE_CLASS_MAPPINGS), "no class_type twice"


@pytest.fixture(autouse=True)
def detectors(put_model: Callable[[str], Path]) -> None:
    """The model tree of the loader's list."""
    put_model("Nudenet/320n.onnx")
    put_model("Nudenet/640m.onnx")


@pytest.mark.parametrize("class_type", CONTRACT)
def test_interface(class_type: str) -> None:
    function, output_node, inputs, outputs = CONTRACT[class_type]
    node: Any = NODE_CLASS_MAPPINGS[class_type]
    assert function == node.FUNCTION
    assert getattr(node, "OUTPUT_NODE", False) is output_node
    signature = NodeSignature.from_class(class_type, node)
    assert list(zip(signature.output_names, signature.outputs, strict=True)) == outputs
    of_lists = class_type == "ShowText|pysssss"
    assert signature.input_is_list is of_lists
    assert set(signature.output_is_list) <= {of_lists}
    declared = [(section, name, spec) for section, specs in node.INPUT_TYPES().items() for name, spec in specs.items()]
    assert [(section, name) for section, name, _ in declared] == [(section, name) for section, name, _ in inputs]
    for (_, name, spec), (_, _, (kind, options)) in zip(declared, inputs, strict=True):
        parts = (spec,) if isinstance(spec, str) else spec
        assert parts[0] == kind, name
        found = dict(parts[1]) if len(parts) > 1 else {}
        assert {key: found.get(key) for key in options} == options, name
        assert set(found) - set(options) <= {"tooltip", "multiline"}, name
        assert found.get("multiline", False) is False, name


@pytest.mark.parametrize("class_type", sorted(CONTRACT.keys() | OWN))
def test_functions_take_the_inputs_with_their_defaults(class_type: str) -> None:
    node: Any = NODE_CLASS_MAPPINGS[class_type]
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for spec in NodeSignature.from_class(class_type, node).inputs:
        if spec.section == "hidden":
            assert takes_all or spec.name in parameters
        elif spec.section == "optional":
            default = parameters[spec.name].default
            assert default == (spec.default if spec.is_widget else None), spec.name
        else:
            assert takes_all or spec.name in parameters


@pytest.mark.parametrize("class_type", sorted(CONTRACT.keys() | OWN))
def test_a_person_is_told_what_it_is(class_type: str) -> None:
    node: Any = NODE_CLASS_MAPPINGS[class_type]
    assert node.CATEGORY
    assert node.DESCRIPTION.endswith((".", ")."))
    assert NODE_DISPLAY_NAME_MAPPINGS[class_type]
    types = node.INPUT_TYPES()
    for section in ("required", "optional"):
        for name, spec in types.get(section, {}).items():
            assert spec[1]["tooltip"], name


@pytest.mark.parametrize("class_type", ["FreeVRAM", "FreeVRAMAutomatic", "VRAMMonitor"])
def test_inputs_of_older_workflows_are_taken_and_ignored(class_type: str) -> None:
    node: Any = NODE_CLASS_MAPPINGS[class_type]
    kinds = {p.kind for p in inspect.signature(getattr(node, node.FUNCTION)).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD in kinds


@pytest.mark.parametrize(
    "class_type", ["FreeVRAM", "FreeVRAMAutomatic", "FreeVRAMInline", "VRAMMonitor", "VRAMMonitorInline"]
)
def test_memory_nodes_are_never_answered_from_the_cache(class_type: str) -> None:
    changed = NODE_CLASS_MAPPINGS[class_type].IS_CHANGED(mode="soft", anything=1)  # type: ignore[attr-defined]
    assert changed != changed


def test_input_types_are_made_anew_each_time() -> None:
    for node in NODE_CLASS_MAPPINGS.values():
        node.INPUT_TYPES().clear()  # type: ignore[attr-defined]
        assert node.INPUT_TYPES()  # type: ignore[attr-defined]
