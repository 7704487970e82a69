"""A ComfyUI on this machine: where it is, which Python runs it, and our nodes inside it."""

from comfy_cpu_core.comfyui.checkout import ComfyUI, find_comfyui, find_python
from comfy_cpu_core.comfyui.install import DEFAULT_EXTRAS, Installation, Installed, install, plan
from comfy_cpu_core.comfyui.interpreter import Interpreter, inspect_python

__all__ = [
    "DEFAULT_EXTRAS",
    "ComfyUI",
    "Installation",
    "Installed",
    "Interpreter",
    "find_comfyui",
    "find_python",
    "inspect_python",
    "install",
    "plan",
]
