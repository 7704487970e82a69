"""The ComfyUI node classes that the engine itself brings: thin wrappers over `comfy_cpu_engine.ops`.

Names, inputs, their order and defaults, and outputs are those of ComfyUI 0.3.64.
"""

from comfy_cpu_engine.nodes.catalogue import NODE_CLASSES

__all__ = ["NODE_CLASSES"]
