"""The client's target for a ComfyUI server.

`protocol`, `messages`, `run` and their kin say what is asked and what answers mean, and open nothing; `transport` alone
talks to the network; `target` and `job` bring the two together.
"""

from comfy_cpu_client.comfyui.address import SCHEMES, Settings
from comfy_cpu_client.comfyui.messages import Preview
from comfy_cpu_client.comfyui.target import ComfyUITarget, open_comfyui

__all__ = ["SCHEMES", "ComfyUITarget", "Preview", "Settings", "open_comfyui"]
