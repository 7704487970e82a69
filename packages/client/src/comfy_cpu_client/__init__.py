"""Run ComfyUI workflows anywhere: one `Client`, one `Result`.

::

    from comfy_cpu_client import Client

    with Client("embedded") as client:
        result = client.run("workflow.json", inputs={"1.image": "photo.jpg"})
        result.images[0].save("out.png")

``Client("runpod://ENDPOINT_ID")``, ``Client("http://127.0.0.1:8000")`` (a ``comfy-cpu serve``) and
``Client("comfyui+http://127.0.0.1:8188")`` take and give the same.
"""

from comfy_cpu_client.client import Client
from comfy_cpu_client.prepare import FileInput, Prepared, prepare, sole_input
from comfy_cpu_client.report import ReportPicture, render_report
from comfy_cpu_client.run import Run
from comfy_cpu_client.save import SavedOutput, save_outputs

__all__ = [
    "Client",
    "FileInput",
    "Prepared",
    "ReportPicture",
    "Run",
    "SavedOutput",
    "prepare",
    "render_report",
    "save_outputs",
    "sole_input",
]
