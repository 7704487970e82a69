"""comfy-cpu in this ComfyUI: the node classes of the Python package comfy_cpu_nodes."""

import sys
from pathlib import Path

_FOLDER = Path(__file__).parent

try:
    from comfy_cpu_nodes.comfyui import load
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("comfy_cpu_"):
        raise
    raise ImportError(
        f"comfy-cpu's packages are missing: {sys.executable} -m pip install -r {_FOLDER / 'requirements.txt'}"
    ) from error

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = load(_FOLDER)

#: Holds ``docs/<class type>.md``, the help that ComfyUI shows for a node.
WEB_DIRECTORY = "./web"
