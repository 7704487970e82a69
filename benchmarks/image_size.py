"""How much an image adds to its base, uncompressed: by Python package and in all, without the models.

    python benchmarks/image_size.py IMAGE --base BASE [--json]
    python benchmarks/image_size.py --lock comfy-cpu.lock [--json]

The first asks Docker for the sizes of both images, and looks into a container for the packages; what is left over is
the worker's own files and what the file system needs. The second needs no Docker: it installs the lock's wheels out of
the cache of `comfy-cpu fetch` into a temporary directory, compiled as they are in an image. Sizes are those of files,
in megabytes of 10^6 bytes; a package's bytecode counts as its own. Exits with 1 if the sum is above its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BAR_MB = 700.0

#: Runs in the image's Python, too: prints what each distribution's files take, in bytes; "" has what is nobody's.
SURVEY = """
import json, os, sys
from importlib import metadata
root = sys.argv[1] if len(sys.argv) > 1 else next(p for p in sys.path if p.endswith("site-packages"))
owner = {}
for found in metadata.distributions(path=[root]):
    for file in found.files or ():
        owner[os.path.normpath(os.path.join(root, file))] = found.metadata["Name"].lower()
sizes = {}
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        source = path
        if os.path.basename(folder) == "__pycache__":
            source = os.path.join(os.path.dirname(folder), name.partition(".")[0] + ".py")
        who = owner.get(path) or owner.get(source, "")
        sizes[who] = sizes.get(who, 0) + os.lstat(path).st_size
print(json.dumps(sizes))
"""


@dataclass(frozen=True)
class Growth:
    """What was measured, in bytes.

    Attributes:
        packages: by name, the largest first; ``(others)`` has files that belong to no package.
        added: what the image has more than its base and its models; the packages' sum where there is no image.
        models: the models' layers, which are not among it.
    """

    packages: dict[str, int]
    added: int
    models: int = 0


def of_image(image: str, base: str) -> Growth:
    """Ask Docker."""
    run = ("docker", "run", "--rm", "--network", "none", image)
    manifest = json.loads(_output(*run, "cat", "/opt/comfy-cpu/image.json"))
    sizes = json.loads(_output(*run, manifest["python"], "-c", SURVEY))
    models = sum(file["size"] for model in manifest["models"] for file in model["files"])
    return Growth(_sorted(sizes), _image_size(image) - _image_size(base) - models, models)


def of_lock(lock: Path, cache: Path) -> Growth:
    """Install the wheels of a lock."""
    document = json.loads(lock.read_text(encoding="utf-8"))
    wheels = [str(cache / "wheels" / package["sha256"] / package["file"]) for package in document["packages"]]
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-size-") as scratch:
        target = Path(scratch, "site-packages")
        options = ("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "--quiet")
        _output(sys.executable, "-m", "pip", "install", *options, "--target", str(target), *wheels)
        _output(sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(target))
        sizes = json.loads(_output(sys.executable, "-c", SURVEY, str(target)))
    return Growth(_sorted(sizes), sum(sizes.values()))


def _sorted(sizes: Mapping[str, int]) -> dict[str, int]:
    return {name or "(others)": size for name, size in sorted(sizes.items(), key=lambda item: -item[1])}


def _image_size(image: str) -> int:
    return int(_output("docker", "image", "inspect", "--format", "{{.Size}}", image))


def _output(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "comfy-cpu"


def main() -> int:
    """Measure and print; 1 if the sum is above its bar."""
    parser = argparse.ArgumentParser(description="What an image adds to its base, by Python package.")
    parser.add_argument("image", nargs="?")
    parser.add_argument("--base", help="the image that it was built from")
    parser.add_argument("--lock", type=Path, help="instead of an image: a comfy-cpu.lock whose wheels are fetched")
    parser.add_argument("--bar", type=float, default=BAR_MB, metavar="MB")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.lock is not None:
        growth = of_lock(arguments.lock, _cache())
    elif arguments.image and arguments.base:
        growth = of_image(arguments.image, arguments.base)
    else:
        parser.error("name an image and its --base, or a --lock")
    over = growth.added / 1e6 > arguments.bar
    if arguments.json:
        document: dict[str, Any] = {**asdict(growth), "bar": round(arguments.bar * 1e6), "over_bar": over}
        print(json.dumps(document, indent=2))
    else:
        for name, size in growth.packages.items():
            print(f"{size / 1e6:9.1f} MB  {name}")
        print(f"{growth.added / 1e6:9.1f} MB  in all{f', over {arguments.bar:g} MB' if over else ''}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
