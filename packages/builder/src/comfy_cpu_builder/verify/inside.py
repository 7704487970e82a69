"""What runs inside the container: sent there on standard input, with nothing but Python's own library to rely on.

Whoever sends it puts a call of `main` behind it, with a request as JSON; the answer is JSON on standard output. ``{"do": "cuda"}`` looks for
libraries of CUDA, ``{"do": "probe"}`` at all else that lies there, ``{"do": "ready"}`` asks whether the worker takes jobs, ``{"do": "comfyui"}`` which classes its ComfyUI has, ``{"do": "run"}`` runs one workflow through the
worker's API as a client does, ``{"do": "processes"}`` tells which run and what they used at most.
"""

import base64
import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

Document = dict[str, Any]

# Libraries that only a GPU of Nvidia needs.
CUDA = re.compile(
    r"lib(cuda|cudart|cublas|cublasLt|cudnn\w*|cufft\w*|curand|cusolver\w*|cusparse\w*|nccl|nvrtc[\w-]*|nvinfer\w*"
    r"|nvToolsExt|cupti|nvJitLink|torch_cuda\w*|c10_cuda)(-[0-9a-f]+)?\.so[.\d]*"
)
SKIPPED = {"/proc", "/sys", "/dev"}

# Asks comfy-cpu itself, in a process of its own: what it imports must not disturb the probe.
NODES = """
import json, sys
from pathlib import Path
from comfy_cpu_core.convert import to_cpu
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.workflow import load
plugins = load_plugins({})
registry = NodeRegistry(plugins)
answer = {"known": sorted(registry.signatures), "problems": dict(registry.problems), "workflows": {},
          "broken": [f"{i.name}: {i.problem}" for i in plugins.infos() if i.state == "broken"]}
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    report = to_cpu(load(path, registry.signatures), plugins, registry)[1].to_json()
    answer["workflows"][path.stem] = {key: report[key] for key in ("changes", "cannot_run", "unknown")}
print(json.dumps(answer))
"""
TORCH = "import json, torch; print(json.dumps({'version': torch.__version__, 'cuda': torch.version.cuda}))"


def probe(request: Document) -> Document:
    """Everything that can be seen without starting anything."""
    manifest = request["manifest"]
    handler = manifest.get("handler")
    start = Path(manifest["start_script"])
    return {
        "uid": os.getuid(),
        "read_only": not os.access("/", os.W_OK),
        "environment": {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "FORCE_CUDA")},
        "packages": sorted({d.metadata["Name"].lower(): d.version for d in metadata.distributions()}.items()),
        "torch": torch(),
        "models": {f["target"]: model(manifest["models_root"], f) for m in manifest["models"] for f in m["files"]},
        "workflows": {w["name"]: workflow(manifest["workflows_root"], w["name"]) for w in manifest["workflows"]},
        "nodes": program(NODES, manifest["workflows_root"]) if has("comfy_cpu_core") else None,
        "start_script": start.read_text(errors="replace") if start.is_file() else None,
        "handler": handler and {"path": handler, "there": Path(handler).is_file()},
    }


def cuda(request: Document) -> Document:
    """Every file that is a library for a GPU of Nvidia, by its name."""
    found: list[str] = []
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if f"/{name}" not in SKIPPED or folder != "/"]
        found += [str(Path(folder, name)) for name in files if CUDA.fullmatch(name)]
    return {"files": sorted(found)}


def torch() -> Document | None:
    """torch's version and the CUDA that it was built for; None where there is no torch."""
    return program(TORCH) if has("torch") else None


def has(module: str) -> bool:
    """Whether a module could be imported."""
    return importlib.util.find_spec(module) is not None


def program(text: str, *arguments: str) -> Document:
    """Run a program in a Python of its own; give the JSON that it prints, or the problem that it has."""
    command = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"problem": lines[-1] if lines else f"exit code {done.returncode}"}
    return dict(json.loads(done.stdout))


def model(root: str, file: Document) -> Document | None:
    """Size and hash of a model's file; None if it is missing."""
    path = Path(root, file["target"])
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(1 << 22):
            digest.update(chunk)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def workflow(root: str, name: str) -> str | None:
    """A workflow's hash; None if it is missing."""
    path = Path(root, f"{name}.json")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def call(path: str, body: Document | None = None, timeout: float = 10, port: int = 8000) -> tuple[int, Any]:
    """Call the worker (or ComfyUI): HTTP status and the document that it answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if os.environ.get("COMFY_CPU_TOKEN"):
        headers["Authorization"] = "Bearer " + os.environ["COMFY_CPU_TOKEN"]
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the worker is in this container
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            return error.code, json.loads(text)
        except ValueError:
            return error.code, {"error": text[:500]}


def ready(request: Document) -> Document:
    """Whether the worker takes jobs, and if not, why."""
    try:
        status, document = call(request["path"])
    except (OSError, ValueError) as error:
        return {"ready": False, "problem": str(error)}
    # The SDK's own server has no probe: that it answers at all must do.
    return {"ready": status == 200 or request["any_answer"], "problem": str((document or {}).get("problem", ""))}


def comfyui(request: Document) -> Document:
    """The node classes that the ComfyUI says it has."""
    try:
        status, document = call("/object_info", timeout=120, port=8188)
    except (OSError, ValueError) as error:
        return {"problem": str(error)}
    return {"classes": sorted(document)} if status == 200 else {"problem": f"HTTP {status}"}


def run(request: Document) -> Document:
    """Run a workflow, as a client does."""
    path = Path(request["workflows_root"], request["workflow"] + ".json")
    prompt = json.loads(path.read_text())
    for key, value in request["values"].items():
        node, _, name = key.partition(".")
        prompt[node]["inputs"][name] = value
    images = []
    for key, file in request["files"].items():
        node, _, name = key.partition(".")
        prompt[node]["inputs"][name] = file["name"]
        images.append({"name": file["name"], "image": file["data"]})
    body = {"input": {"workflow": prompt, "images": images}}
    started = time.monotonic()
    try:
        status, answer = call(request["path"], body, request["timeout"])
    except (OSError, ValueError) as error:
        return {"problem": f"no answer: {error}", "seconds": time.monotonic() - started}
    seconds = time.monotonic() - started
    if status != 200:
        return {"problem": f"HTTP {status}: {str(answer)[:500]}", "seconds": seconds}
    output = answer.get("output") or {}
    result = output.get("result") or {}
    return {
        "seconds": seconds,
        "problem": "" if answer.get("status") == "COMPLETED" else str(answer.get("error") or answer)[:500],
        "result": {
            "status": output.get("status") or ("completed" if answer.get("status") == "COMPLETED" else "failed"),
            "errors": result.get("errors", []),
            "stand_in": result.get("stand_in", False),
            "outputs": [picture(image) for image in output.get("images", [])],
        },
    }


def picture(image: Any) -> Document:
    """What a picture of an answer is, and what is wrong with it."""
    data = image if isinstance(image, str) else image.get("data", "")
    raw = base64.b64decode(data)
    described: Document = {
        "node_id": None if isinstance(image, str) else image.get("node_id"),
        "filename": None if isinstance(image, str) else image.get("filename"),
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "problem": "",
    }
    try:
        from PIL import Image

        with Image.open(io.BytesIO(raw)) as opened:
            opened.load()
            described |= {"format": opened.format, "width": opened.width, "height": opened.height}
    except Exception as error:
        described["problem"] = f"{type(error).__name__}: {error}"
    return described


def processes(request: Document) -> Document:
    """The command of every process, and what all used at most, added up: pages that they share count for each."""
    commands, peak = [], 0
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            status, command = (folder / "status").read_text(), (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        commands.append([part.decode(errors="replace") for part in command.split(b"\0") if part])
        if match := re.search(r"^VmHWM:\s+(\d+) kB", status, re.M):
            peak += int(match[1]) * 1024
    return {"commands": sorted(commands), "peak_bytes": peak}


def main(request: str) -> None:
    """Do what is asked, and print the answer."""
    asked = json.loads(request)
    doers = {"cuda": cuda, "probe": probe, "ready": ready, "comfyui": comfyui, "run": run, "processes": processes}
    json.dump(doers[asked["do"]](asked), sys.stdout)
