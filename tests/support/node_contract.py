"""What existing workflows expect of our nodes, written down by hand: the tests against a real ComfyUI compare with it.

Kept apart from the unit tests' table on purpose: an error would have to be made twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CONTRACT", "OWN", "Contract"]

#: An input: its type or its options in order (None: files that are found), and what else is said of it.
Input = tuple[Any, Mapping[str, Any]]


@dataclass(frozen=True)
class Contract:
    """Inputs and outputs of a class, in order.

    Attributes:
        outputs: (name, type).
    """

    required: Mapping[str, Input] = field(default_factory=dict)
    optional: Mapping[str, Input] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[tuple[str, str], ...] = ()
    output_node: bool = False
    of_lists: bool = False


def combo(*options: str, default: str | None = None) -> Input:
    return list(options), {"default": default or options[0]}


def number(default: float, low: float, high: float, step: float | None = None) -> Input:
    said = {"default": default, "min": low, "max": high}
    return "FLOAT" if isinstance(step, float) else "INT", said | ({"step": step} if step is not None else {})


def yes_no(default: bool) -> Input:
    return "BOOLEAN", {"default": default}


def text(default: str | None = None, **said: Any) -> Input:
    return "STRING", said | ({"default": default} if default is not None else {})


IMAGE: Input = ("IMAGE", {})
LINKED: Input = ("STRING", {"forceInput": True})
FOUND: Input = (None, {})

PROVIDER = combo("CPU", "CUDA", "DirectML")
FINISHING = {
    "background_color": combo("none", "white", "black", "red", "green", "blue", "custom"),
    "custom_hex_color": text("#FFFFFF"),
    "sensitivity": number(1, 0, 1, 0.01),
    "mask_blur": number(0, 0, 64),
    "mask_offset": number(0, -64, 64),
}
CUT_OUT = (("image", "IMAGE"), ("mask", "MASK"))
FOUR = ("bilinear", "bicubic", "nearest", "lanczos")
THREE = ("lanczos", "bicubic", "bilinear")
SIDE = number(1024, 64, 8192, 64)
PICTURE = (("image", "IMAGE"),)
MODE = combo("soft", "aggressive")
UNIQUE = {"unique_id": "UNIQUE_ID", "prompt": "PROMPT"}
STOPS = {"stop_on_nsfw": yes_no(True), "stop_on_violence": yes_no(True)}
EXTRACTED = (
    ("primary_subject", "STRING"),
    ("secondary_subjects_text", "STRING"),
    ("nsfw", "BOOLEAN"),
    ("violence", "BOOLEAN"),
)
N_CTX = number(4096, 1024, 8192, 256)
N_GPU_LAYERS = number(-1, -1, 80)
PRECISION = combo("fp16", "bf16", "fp32")
ATTENTION = combo("flash_attention_2", "sdpa", "eager", default="sdpa")
FLORENCE = {"lora": ("PEFTLORA", {}), "convert_to_safetensors": yes_no(False)}

LABELS = (
    "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED",
    "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)  # fmt: skip

CONTRACT = {
    "BEN2_ONNX_RemoveBg": Contract({"image": IMAGE, "provider": PROVIDER}, FINISHING, outputs=CUT_OUT),
    "BiRefNet_ONNX_RemoveBg": Contract(
        {
            "image": IMAGE,
            "model_variant": combo("general", "portrait", "general-lite", "matting"),
            "provider": PROVIDER,
        },
        {**FINISHING, "process_resolution": number(1024, 512, 2048, 64)},
        outputs=CUT_OUT,
    ),
    "BiRefNet_HR_RemoveBg": Contract(
        {"image": IMAGE, "model_variant": combo("BiRefNet_HR", "BiRefNet_HR-matting")},
        {**FINISHING, "process_resolution": number(2048, 1024, 2560, 256), "use_fp16": yes_no(True)},
        outputs=CUT_OUT,
    ),
    "SmartResizeForModel": Contract(
        {
            "image": IMAGE,
            "target_model": combo("1024 (BEN2/BiRefNet)", "2048 (BiRefNet_HR)", default="2048 (BiRefNet_HR)"),
            "resize_mode": combo("smart", "always_resize", "only_if_needed"),
        },
        {"interpolation": combo(*THREE)},
        outputs=(("image", "IMAGE"), ("original_width", "INT"), ("original_height", "INT")),
    ),
    "RestoreOriginalSize": Contract(
        {"image": IMAGE, "original_width": number(1024, 1, 16384), "original_height": number(1024, 1, 16384)},
        {"interpolation": combo(*THREE)},
        outputs=PICTURE,
    ),
    "ImageResizeForProcessing": Contract(
        {
            "image": IMAGE,
            "target_resolution": combo("512", "768", "1024", "1280", "1536", "2048", "custom", default="1024"),
        },
        {
            "custom_width": SIDE,
            "custom_height": SIDE,
            "resize_mode": combo("stretch", "fit", "fill", default="fit"),
            "interpolation": combo(*FOUR),
        },
        outputs=PICTURE,
    ),
    "ImageResizeToReference": Contract(
        {"image": IMAGE, "scale_mode": combo("reference", "scale_factor", "dimensions")},
        {
            "reference_image": IMAGE,
            "scale_factor": number(1, 0.1, 8, 0.1),
            "target_width": SIDE,
            "target_height": SIDE,
            "interpolation": combo(*FOUR, default="lanczos"),
        },
        outputs=PICTURE,
    ),
    "ImageScaleByFactor": Contract(
        {
            "image": IMAGE,
            "scale_factor": combo("0.25x", "0.5x", "0.75x", "1x", "1.25x", "1.5x", "2x", "3x", "4x", default="1x"),
            "interpolation": combo(*FOUR, default="lanczos"),
        },
        outputs=PICTURE,
    ),
    "FreeVRAM": Contract({}, {"mode": MODE, "unload_models": yes_no(False)}, UNIQUE, output_node=True),
    "FreeVRAMAutomatic": Contract({}, {"trigger": yes_no(True)}, UNIQUE, output_node=True),
    "FreeVRAMInline": Contract({"image": IMAGE}, {"mode": MODE, "unload_models": yes_no(False)}, outputs=PICTURE),
    "VRAMMonitor": Contract(
        {}, {"show_details": yes_no(True)}, UNIQUE, outputs=(("vram_info", "STRING"),), output_node=True
    ),
    "VRAMMonitorInline": Contract(
        {"image": IMAGE},
        {"show_details": yes_no(True), "prefix": text("")},
        outputs=(("image", "IMAGE"), ("vram_info", "STRING")),
    ),
    "SaveImageNoMetadata": Contract({"images": IMAGE, "filename_prefix": text("Untitled image")}, output_node=True),
    "NudeNetSafetyChecker": Contract(
        {"image": IMAGE},
        {"threshold": number(0.6, 0, 1, 0.05)},
        outputs=(("json", "STRING"), ("is_nsfw", "BOOLEAN"), ("max_score", "FLOAT")),
    ),
    "HybridSafetyGate": Contract(
        {"image": IMAGE, "nudenet_json": LINKED, "multidomain_json": LINKED},
        {
            "block_unsafe": yes_no(True),
            "block_borderline": yes_no(False),
            "nudenet_overrides_llama": yes_no(True),
        },
        outputs=(("image", "IMAGE"), ("status", "STRING")),
    ),
    "MultiDomainSafetyClassifier": Contract(
        {"caption": text(multiline=True), "model_path": text()},
        {
            "temperature": number(0.1, 0, 1, 0.05),
            "max_new_tokens": number(300, 64, 1024, 16),
            "n_ctx": N_CTX,
            "n_gpu_layers": N_GPU_LAYERS,
        },
        outputs=(("json", "STRING"),),
    ),
    "MultiDomainSafetyGate": Contract(
        {"image": IMAGE, "classification_json": LINKED},
        {
            "block_unsafe": yes_no(True),
            "block_borderline": yes_no(False),
            **{f"check_{domain}": yes_no(True) for domain in ("sexual", "violence", "hate", "disturbing", "drugs")},
        },
        outputs=(("image", "IMAGE"), ("status", "STRING")),
    ),
    "LocalJSONExtractorLlama": Contract(
        {
            "caption": text(multiline=True),
            "model_path": text(),
            "subject_priority": combo("auto", "product", "person", default="product"),
        },
        {
            "temperature": number(0.1, 0, 1, 0.05),
            "max_new_tokens": number(192, 32, 1024, 16),
            "n_ctx": N_CTX,
            "n_gpu_layers": N_GPU_LAYERS,
            "seed": number(0, 0, 2**31 - 1),
        },
        outputs=(("json", "STRING"),),
    ),
    "LLMJSONParser": Contract({"json_string": LINKED}, outputs=EXTRACTED),
    "LLMSafetyGate": Contract(
        {"primary_subject": LINKED},
        {
            "nsfw": ("BOOLEAN", {"forceInput": True, "default": False}),
            "violence": ("BOOLEAN", {"forceInput": True, "default": False}),
            **STOPS,
        },
        outputs=(("safe_subject", "STRING"),),
    ),
    "LLMSafetyGateJSON": Contract({"json_string": LINKED}, STOPS, outputs=EXTRACTED),
    "ImageSafetyGate": Contract(
        {"image": IMAGE, "json_string": LINKED},
        STOPS,
        outputs=(("image", "IMAGE"), ("primary_subject", "STRING"), ("nsfw", "BOOLEAN"), ("violence", "BOOLEAN")),
    ),
    "NudenetModelLoader": Contract({"model": FOUND}, outputs=(("NUDENET_MODEL", "NUDENET_MODEL"),)),
    "FilterdLabel": Contract(
        {label: yes_no(True) for label in LABELS}, outputs=(("FILTERED_LABELS", "FILTERED_LABELS"),)
    ),
    "ApplyNudenet": Contract(
        {
            "nudenet_model": ("NUDENET_MODEL", {}),
            "image": IMAGE,
            "censor_method": combo("pixelate", "blur", "gaussian_blur", "image"),
            "filtered_labels": ("FILTERED_LABELS", {}),
            "min_score": number(0.2, 0, 1, 0.01),
            "blocks": number(3, 1, 100),
            "block_count_scaling": combo("fixed", "fewer_when_small", "fewer_when_large"),
        },
        {"overlay_image": IMAGE, "overlay_strength": number(1, 0, 10, 0.1), "alpha_mask": ("MASK", {})},
        outputs=(("IMAGE", "IMAGE"),),
    ),
    "ShowText|pysssss": Contract(
        {"text": LINKED},
        hidden={"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"},
        outputs=(("STRING", "STRING"),),
        output_node=True,
        of_lists=True,
    ),
    "DownloadAndLoadFlorence2Lora": Contract(
        {"model": combo("NikshepShetty/Florence-2-pixelprose")}, outputs=(("lora", "PEFTLORA"),)
    ),
    "DownloadAndLoadFlorence2Model": Contract(
        {
            "model": combo(
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
            ),
            "precision": PRECISION,
            "attention": ATTENTION,
        },
        FLORENCE,
        outputs=(("florence2_model", "FL2MODEL"),),
    ),
    "Florence2ModelLoader": Contract(
        {"model": FOUND, "precision": PRECISION, "attention": ATTENTION},
        FLORENCE,
        outputs=(("florence2_model", "FL2MODEL"),),
    ),
    "Florence2Run": Contract(
        {
            "image": IMAGE,
            "florence2_model": ("FL2MODEL", {}),
            "text_input": text("", multiline=True),
            "task": combo(
                "region_caption", "dense_region_caption", "region_proposal", "caption", "detailed_caption",
                "more_detailed_caption", "caption_to_phrase_grounding", "referring_expression_segmentation", "ocr",
                "ocr_with_region", "docvqa", "prompt_gen_tags", "prompt_gen_mixed_caption", "prompt_gen_analyze",
                "prompt_gen_mixed_caption_plus",
            ),
            "fill_mask": yes_no(True),
        },
        {
            "keep_model_loaded": yes_no(False),
            "max_new_tokens": number(1024, 1, 4096),
            "num_beams": number(3, 1, 64),
            "do_sample": yes_no(True),
            "output_mask_select": text(""),
            "seed": number(1, 1, 2**64 - 1),
        },
        outputs=(("image", "IMAGE"), ("mask", "MASK"), ("caption", "STRING"), ("data", "JSON")),
    ),
}  # fmt: skip

#: Ours alone: no workflow expects anything of them. LocalLLMLoader_AdvV2 is a name whose inputs are not public.
OWN = {"BEN2_ONNX_RawMask", "LocalLLMLoader_AdvV2", "LocalLLMGenerate"}
