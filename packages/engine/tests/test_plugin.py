"""What the engine contributes."""

from __future__ import annotations

from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.plugins import get_plugins
from comfy_cpu_core.registry import get_registry
from comfy_cpu_engine.nodes import NODE_CLASSES


def test_the_target_embedded_is_there() -> None:
    found = get_plugins().unique("comfy_cpu_targets", "scheme", "target")
    target = found["embedded"].open("embedded", {"models": "/nowhere"})
    assert target.health()["ready"] is True
    target.close()


def test_the_node_classes_are_there() -> None:
    registry = get_registry()
    for node in NODE_CLASSES:
        found = registry.get(node.class_type)
        assert found is not None
        assert found.summary
        assert registry.plugin_of(node.class_type) == "engine"


def test_signatures_can_be_read_outside_a_run() -> None:
    for node in NODE_CLASSES:
        signature = NodeSignature.from_class(node.class_type, node.cls)
        assert len(signature.outputs) == len(node.cls.RETURN_TYPES)
        assert callable(getattr(node.cls, node.cls.FUNCTION))


def test_widgets_stand_in_comfyui_s_order() -> None:
    signatures = {node.class_type: node.signature for node in NODE_CLASSES}
    assert {name: [w.name for w in s.widgets] for name, s in signatures.items() if s.widgets} == {
        "LoadImage": ["image"],
        "LoadImageMask": ["image", "channel"],
        "SaveImage": ["filename_prefix"],
        "ImageScale": ["upscale_method", "width", "height", "crop"],
        "EmptyImage": ["width", "height", "batch_size", "color"],
        "ImageCrop": ["width", "height", "x", "y"],
        "ImagePadForOutpaint": ["left", "top", "right", "bottom", "feathering"],
        "ImageCompositeMasked": ["x", "y", "resize_source"],
        "ImageToMask": ["channel"],
    }
