"""The node classes, as ComfyUI and our engine know them.

One table says it all; the two mappings that ComfyUI looks for come from it.
"""

from __future__ import annotations

from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_nodes.nodes.background import Ben2RawMask, Ben2RemoveBackground
from comfy_cpu_nodes.nodes.birefnet import BiRefNetHrRemoveBackground, BiRefNetRemoveBackground
from comfy_cpu_nodes.nodes.florence2 import Florence2Run
from comfy_cpu_nodes.nodes.florence2_loaders import (
    DownloadAndLoadFlorence2Lora,
    DownloadAndLoadFlorence2Model,
    Florence2ModelLoader,
)
from comfy_cpu_nodes.nodes.gates import (
    HybridSafetyGate,
    ImageSafetyGate,
    LLMJSONParser,
    LLMSafetyGate,
    LLMSafetyGateJSON,
    MultiDomainSafetyGate,
)
from comfy_cpu_nodes.nodes.llama import (
    LocalJsonExtractor,
    LocalLlmGenerate,
    LocalLlmLoader,
    MultiDomainSafetyClassifier,
)
from comfy_cpu_nodes.nodes.memory import FreeVram, FreeVramAutomatic, FreeVramInline, VramMonitor, VramMonitorInline
from comfy_cpu_nodes.nodes.nudenet import ApplyNudenet, FilteredLabel, NudenetModelLoader
from comfy_cpu_nodes.nodes.resize import (
    ImageResizeForProcessing,
    ImageResizeToReference,
    ImageScaleByFactor,
    RestoreOriginalSize,
    SmartResizeForModel,
)
from comfy_cpu_nodes.nodes.safety import NudeNetSafetyChecker
from comfy_cpu_nodes.nodes.save import SaveImageNoMetadata
from comfy_cpu_nodes.nodes.text import ShowText

__all__ = ["NODES", "NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

# Extras of this distribution, each of which brings a runtime for ONNX models.
_ONNX = ("openvino", "onnxruntime")
# The extra that brings torch and transformers.
_FLORENCE = ("florence2",)
# The extra that brings llama.cpp.
_LLAMA = ("llama",)

NODES: tuple[NodeClass, ...] = (
    NodeClass(
        "BEN2_ONNX_RemoveBg",
        Ben2RemoveBackground,
        "BEN2 ONNX Remove Background",
        "cut the subject out of a picture",
        requires="openvino or onnxruntime; the model ben2-base",
        extras=_ONNX,
    ),
    NodeClass(
        "BEN2_ONNX_RawMask",
        Ben2RawMask,
        "BEN2 ONNX Raw Mask",
        "BEN2's scores as a mask, not stretched",
        requires="openvino or onnxruntime; the model ben2-base",
        extras=_ONNX,
    ),
    NodeClass(
        "SmartResizeForModel",
        SmartResizeForModel,
        "Smart Resize (BG Removal)",
        "resize to the area that a model works with",
    ),
    NodeClass(
        "RestoreOriginalSize", RestoreOriginalSize, "Restore Original Size", "resize to a given width and height"
    ),
    NodeClass(
        "ImageResizeForProcessing",
        ImageResizeForProcessing,
        "Image Resize (Pre-process)",
        "stretch, fit or fill a common resolution",
    ),
    NodeClass(
        "ImageResizeToReference",
        ImageResizeToReference,
        "Image Resize to Reference",
        "resize to the size of another picture",
    ),
    NodeClass("ImageScaleByFactor", ImageScaleByFactor, "Image Scale by Factor", "scale by a common factor"),
    NodeClass("FreeVRAM", FreeVram, "Free VRAM (Standalone)", "free memory"),
    NodeClass("FreeVRAMAutomatic", FreeVramAutomatic, "Free VRAM (Auto)", "collect unused memory on every run"),
    NodeClass("FreeVRAMInline", FreeVramInline, "Free VRAM (Inline)", "free memory between two nodes"),
    NodeClass("VRAMMonitor", VramMonitor, "VRAM Monitor (Standalone)", "report on memory and loaded models"),
    NodeClass("VRAMMonitorInline", VramMonitorInline, "VRAM Monitor (Inline)", "report on memory between two nodes"),
    NodeClass(
        "SaveImageNoMetadata", SaveImageNoMetadata, "Save Image (No Metadata)", "save PNG files without the workflow"
    ),
    NodeClass(
        "NudeNetSafetyChecker",
        NudeNetSafetyChecker,
        "NudeNet Safety Checker",
        "look for nudity in every picture of a batch",
        requires="openvino or onnxruntime; the model nudenet-320n",
        extras=_ONNX,
    ),
    NodeClass("ShowText|pysssss", ShowText, "Show Text", "show a text as an output"),
    NodeClass(
        "NudenetModelLoader",
        NudenetModelLoader,
        "Nudenet Model Loader",
        "load a NudeNet detector",
        requires="openvino or onnxruntime; a NudeNet model",
        extras=_ONNX,
    ),
    NodeClass("FilterdLabel", FilteredLabel, "Filtered Labels", "choose what is censored"),
    NodeClass(
        "ApplyNudenet",
        ApplyNudenet,
        "Apply Nudenet",
        "censor what NudeNet finds in every picture of a batch",
        requires="openvino or onnxruntime; a NudeNet model",
        extras=_ONNX,
    ),
    NodeClass(
        "BiRefNet_ONNX_RemoveBg",
        BiRefNetRemoveBackground,
        "BiRefNet ONNX Remove Background",
        "cut the subject out of a picture",
        requires="openvino or onnxruntime; the model birefnet-general, or another variant",
        extras=_ONNX,
    ),
    NodeClass(
        "BiRefNet_HR_RemoveBg",
        BiRefNetHrRemoveBackground,
        "BiRefNet HR Remove Background",
        "cut the subject out of a large picture",
        requires="openvino or onnxruntime; an ONNX export of your own in birefnet_hr/",
        extras=_ONNX,
    ),
    NodeClass(
        "DownloadAndLoadFlorence2Model",
        DownloadAndLoadFlorence2Model,
        "DownloadAndLoadFlorence2Model",
        "load a Florence-2, and fetch it if it is not there",
        requires="torch and transformers (the extra florence2); a Florence-2 in LLM/",
        extras=_FLORENCE,
    ),
    NodeClass(
        "Florence2ModelLoader",
        Florence2ModelLoader,
        "Florence2ModelLoader",
        "load a Florence-2",
        requires="torch and transformers (the extra florence2); a Florence-2 in LLM/",
        extras=_FLORENCE,
    ),
    NodeClass(
        "DownloadAndLoadFlorence2Lora",
        DownloadAndLoadFlorence2Lora,
        "DownloadAndLoadFlorence2Lora",
        "take a LoRA adapter for Florence-2, and fetch it if it is not there",
        requires="torch and transformers (the extra florence2); the adapter in LLM/",
        extras=_FLORENCE,
    ),
    NodeClass(
        "Florence2Run",
        Florence2Run,
        "Florence2Run",
        "describe pictures, find things in them, read their text",
        requires="torch and transformers (the extra florence2); a Florence-2 in LLM/",
        extras=_FLORENCE,
    ),
    NodeClass(
        "MultiDomainSafetyClassifier",
        MultiDomainSafetyClassifier,
        "Multi-Domain Safety Classifier (Llama)",
        "rate a caption in five domains",
        requires="llama-cpp-python; a GGUF model in llm/",
        extras=_LLAMA,
    ),
    NodeClass(
        "LocalJSONExtractorLlama",
        LocalJsonExtractor,
        "Local JSON Extractor (Llama)",
        "take the facts out of a caption",
        requires="llama-cpp-python; a GGUF model in llm/",
        extras=_LLAMA,
    ),
    NodeClass(
        "LocalLLMLoader_AdvV2",
        LocalLlmLoader,
        "Local LLM Loader (Advanced)",
        "load a language model",
        requires="llama-cpp-python; a GGUF model in llm/",
        extras=_LLAMA,
    ),
    NodeClass(
        "LocalLLMGenerate",
        LocalLlmGenerate,
        "Local LLM Generate",
        "answer a prompt with a language model",
        requires="llama-cpp-python; a GGUF model in llm/",
        extras=_LLAMA,
    ),
    NodeClass("LLMJSONParser", LLMJSONParser, "LLM JSON Parser", "take the extractor's answer apart"),
    NodeClass("LLMSafetyGate", LLMSafetyGate, "LLM Safety Gate", "stop where a flag forbids to go on"),
    NodeClass(
        "LLMSafetyGateJSON", LLMSafetyGateJSON, "LLM Safety Gate (JSON)", "stop where the extractor's answer forbids it"
    ),
    NodeClass(
        "ImageSafetyGate", ImageSafetyGate, "Image Safety Gate", "stop a picture that the extractor's answer forbids"
    ),
    NodeClass(
        "HybridSafetyGate",
        HybridSafetyGate,
        "Hybrid Safety Gate (NudeNet + Llama)",
        "stop a picture to which NudeNet or the classifier objects",
    ),
    NodeClass(
        "MultiDomainSafetyGate",
        MultiDomainSafetyGate,
        "Multi-Domain Safety Gate",
        "stop a picture to which the classifier objects",
    ),
)

NODE_CLASS_MAPPINGS: dict[str, type] = {node.class_type: node.cls for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {node.class_type: node.display_name for node in NODES}
