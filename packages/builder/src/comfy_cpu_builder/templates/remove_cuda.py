"""Takes CUDA out of an image: Python packages, libraries, toolkits. With ``--check``: fails if any is left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = re.compile(r"torch|torchvision|torchaudio|xformers|triton|(nvidia|cuda)[-_.].*", re.IGNORECASE)
LEFT = re.compile(r"triton|(nvidia|cuda)[-_.].*", re.IGNORECASE)
LIBRARY = re.compile(
    r"lib(cuda|cudart|cublas|cublasLt|cudnn\w*|cufft\w*|curand|cusolver\w*|cusparse\w*|nccl|nvrtc[\w-]*|nvinfer\w*"
    r"|nvToolsExt|cupti|nvJitLink|torch_cuda\w*|c10_cuda)(-[0-9a-f]+)?\.so[.\d]*"
)
SKIPPED = {"proc", "sys", "dev"}


def packages(pattern: re.Pattern[str]) -> list[str]:
    """The installed packages with such names."""
    return sorted({d.metadata["Name"] for d in metadata.distributions() if pattern.fullmatch(d.metadata["Name"] or "")})


def libraries() -> list[Path]:
    """Every CUDA library in the file system."""
    found = []
    for folder, folders, files in os.walk("/"):
        if folder == "/":
            folders[:] = [name for name in folders if name not in SKIPPED]
        found += [Path(folder, name) for name in files if LIBRARY.fullmatch(name)]
    return found


def main(arguments: list[str]) -> int:
    """Remove, or check; gives the exit code."""
    if arguments == ["--check"]:
        left = [*packages(LEFT), *map(str, libraries())]
        if left:
            sys.stderr.write(f"CUDA is left in the image: {', '.join(left[:10])}\n")
        return 1 if left else 0
    if names := packages(PACKAGES):
        subprocess.run([sys.executable, arguments[0], "uninstall", "--yes", "--quiet", *names], check=True)
    for toolkit in Path("/usr/local").glob("cuda*"):
        toolkit.unlink() if toolkit.is_symlink() else shutil.rmtree(toolkit)
    for library in libraries():
        library.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
