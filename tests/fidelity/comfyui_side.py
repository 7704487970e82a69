"""Runs inside a ComfyUI's interpreter: does what a job file asks for, with ComfyUI's own code.

Usage: python comfyui_side.py COMFYUI JOB.json ANSWER.json

A job has three lists: ``nodes`` (class_type, inputs; an input ``{"array": FILE}`` is a tensor), ``prompts`` to validate
and ``runs`` to execute. Tensors in the answer are .npy files beside it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from pathlib import Path
from typing import Any

comfyui, job_file, answer_file = map(Path, sys.argv[1:4])
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, str(comfyui))

# isort: off
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401  # first: execution brings another module called utils
import execution  # noqa: E402
import folder_paths  # noqa: E402
import nodes  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
# isort: on


class Server:
    """What a PromptExecutor needs of ComfyUI's server."""

    client_id = None
    last_node_id = None
    last_prompt_id = None

    def send_sync(self, *_: Any) -> None:
        pass


def load_extras() -> None:
    base = comfyui / "comfy_extras"
    for name in ("nodes_mask", "nodes_images", "nodes_compositing"):
        if not asyncio.run(nodes.load_custom_node(str(base / f"{name}.py"), module_parent="comfy_extras")):
            raise SystemExit(f"ComfyUI cannot load {name}")


def run_node(number: int, class_type: str, inputs: dict[str, Any]) -> dict[str, Any]:
    cls = nodes.NODE_CLASS_MAPPINGS[class_type]
    values = {
        name: torch.from_numpy(np.load(value["array"])) if isinstance(value, dict) else value
        for name, value in inputs.items()
    }
    try:
        if hasattr(cls, "define_schema"):
            results = cls.execute(**values).args
        else:
            results = getattr(cls(), cls.FUNCTION)(**values)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    if isinstance(results, dict):
        return {"ui": results["ui"]}
    files = []
    for index, tensor in enumerate(results):
        files.append(str(answer_file.parent / f"node{number}-{index}.npy"))
        np.save(files[-1], tensor.numpy())
    return {"files": files}


def validate(prompt: dict[str, Any]) -> dict[str, Any]:
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("p", copy.deepcopy(prompt), None))
    return {
        "valid": valid,
        "error": error and error["type"],
        "outputs": sorted(outputs),
        "node_errors": {
            node_id: [(e["type"], e["extra_info"].get("input_name")) for e in found["errors"]]
            for node_id, found in node_errors.items()
        },
    }


def run(number: int, prompt: dict[str, Any]) -> dict[str, Any]:
    output = answer_file.parent / f"run{number}"
    folder_paths.set_output_directory(str(output / "output"))
    folder_paths.set_temp_directory(str(output / "temp"))
    prompt = copy.deepcopy(prompt)
    valid, error, outputs, _ = asyncio.run(execution.validate_prompt("p", prompt, None))
    if not valid:
        return {"error": error}
    executor = execution.PromptExecutor(Server())
    executor.execute(prompt, "p", {}, outputs)
    return {"success": executor.success, "outputs": executor.history_result["outputs"], "folder": str(output)}


def input_types(class_type: str) -> dict[str, Any]:
    cls = nodes.NODE_CLASS_MAPPINGS[class_type]
    return {
        "inputs": cls.INPUT_TYPES(),
        "outputs": list(cls.RETURN_TYPES),
        "output_node": bool(getattr(cls, "OUTPUT_NODE", False)),
        "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(class_type, class_type),
        "category": cls.CATEGORY,
    }


def main() -> None:
    job = json.loads(job_file.read_text())
    load_extras()
    folder_paths.set_input_directory(job["input"])
    folder_paths.set_output_directory(str(answer_file.parent / "output"))
    folder_paths.set_temp_directory(str(answer_file.parent / "temp"))
    with torch.inference_mode():
        answer = {
            "version": __import__("comfyui_version").__version__,
            "signatures": {name: input_types(name) for name in job["classes"]},
            "nodes": [run_node(i, case["class_type"], case["inputs"]) for i, case in enumerate(job["nodes"])],
            "prompts": [validate(prompt) for prompt in job["prompts"]],
            "runs": [run(i, prompt) for i, prompt in enumerate(job["runs"])],
        }
    answer_file.write_text(json.dumps(answer))


main()
