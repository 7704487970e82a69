"""The demo: a photo through a GPU workflow, on the CPU.

Writes the cut-out picture, its mask, ``result.json`` and ``report.html``. BEN2's real weights are used where the model
tree has them or the Hub can be reached; otherwise a stand-in takes their place, and everything that it made says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from comfy_cpu_client import Client, ReportPicture, render_report
from comfy_cpu_client.cli.progress import show_progress
from comfy_cpu_core.cli.console import note, print_error, print_warning
from comfy_cpu_core.cli.progress import file_progress
from comfy_cpu_core.errors import ComfyCpuError, HubError
from comfy_cpu_core.fetch import Fetchers, fetch_model
from comfy_cpu_core.needs import known_models
from comfy_cpu_core.plugins import get_plugins
from comfy_cpu_core.results import Output, Result
from comfy_cpu_core.tree import ModelTree, default_models_dir

HERE = Path(__file__).parent
WORKFLOW = HERE / "workflows" / "background_removal.json"
PHOTO = HERE / "astronaut.jpg"
PHOTO_SOURCE = "Photo: the astronaut Eileen Collins, NASA, public domain."
BEN2 = "ben2-base"
BEN2_FILE = "ben2_onnx/BEN2_Base.onnx"
PACKAGES = (
    "comfy-cpu-core",
    "comfy-cpu-nodes",
    "comfy-cpu-engine",
    "comfy-cpu-client",
    "openvino",
    "onnxruntime",
    "nudenet",
)


def main() -> int:
    """Run the demo; gives the exit code."""
    parser = argparse.ArgumentParser(description="Cut the background out of a photo, on the CPU.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where the four files go")
    parser.add_argument("--photo", type=Path, default=PHOTO, help="the photo to cut out")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="comfy-cpu-demo-") as scratch:
            models = real_or_stand_in_models(Path(scratch))
            result = cut_out(arguments.photo, models)
        write(result, arguments.photo, arguments.output)
    except ComfyCpuError as error:
        print_error(str(error), error.remedy)
        return error.exit_code
    return 0 if result.ok else 6


def real_or_stand_in_models(scratch: Path) -> Path:
    """The model tree to use: the user's, filled from the Hub if need be, or one with a stand-in if that fails."""
    tree = ModelTree(default_models_dir(os.environ))
    if tree.has(BEN2_FILE):
        return tree.root
    try:
        fetch_ben2(tree)
    except HubError as error:
        from comfy_cpu_nodes.testing import write_ben2_stand_in

        print_warning(f"BEN2's weights cannot be fetched: {error}")
        print_warning("a STAND-IN takes the place of BEN2: it imitates the model's shape, not its quality")
        stand_in = ModelTree(scratch).path(BEN2_FILE)
        stand_in.parent.mkdir(parents=True)
        write_ben2_stand_in(stand_in)
        return scratch
    return tree.root


def fetch_ben2(tree: ModelTree) -> None:
    """Get BEN2's weights from the Hub into the user's model tree, as ``comfy-cpu models fetch`` does."""
    plugins = get_plugins()
    spec = known_models(plugins)[BEN2]
    with file_progress() as shown:
        fetch_model(spec, tree, Fetchers.of(plugins), progress=shown.fetching, checking=shown.checking, note=shown.note)


def cut_out(photo: Path, models: Path) -> Result:
    """Run the shipped workflow on the photo."""
    with Client("embedded", models=models) as client, show_progress() as on_event:
        return client.run(WORKFLOW, inputs={"1.image": photo}, on_event=on_event)


def write(result: Result, photo: Path, directory: Path) -> None:
    """Write the four files and say where they are."""
    directory.mkdir(parents=True, exist_ok=True)
    for warning in result.warnings:
        print_warning(warning)
    for error in result.errors:
        print_error(error.message, error.remedy)
    pictures = [ReportPicture("before", "image/jpeg", photo.read_bytes())]
    for name, caption, node_id in (("cutout.png", "after: background removed", "6"), ("mask.png", "mask", "9")):
        output = image_of(result, node_id)
        if output is not None:
            output.save(directory / name)
            pictures.append(ReportPicture.of(output, caption))
    (directory / "result.json").write_text(json.dumps(result.to_json(), indent=2) + "\n")
    page = render_report(
        result,
        title="comfy-cpu: a GPU workflow on a CPU",
        pictures=pictures,
        versions=versions(),
        notes=[PHOTO_SOURCE] if photo == PHOTO else [],
        headings={"10": "Safety check by NudeNet"},
    )
    (directory / "report.html").write_text(page)
    note(f"{result.status} in {result.execution_seconds:.1f} s; see {directory / 'report.html'}")


def image_of(result: Result, node_id: str) -> Output | None:
    """The picture that a node of the workflow made."""
    return next((output for output in result.images if output.node_id == node_id), None)


def versions() -> dict[str, str]:
    """Versions of what made the result."""
    found = {"Python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
