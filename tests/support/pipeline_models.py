"""The models of the reference's whole pipeline, as stand-ins."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["GGUF", "write_pipeline_models"]

#: The language model that the workflow names, by the path that it had on somebody's Windows.
GGUF = "Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf"


def write_pipeline_models(tree: Path, caption: str) -> Path:
    """Add stand-ins for Florence-2 and Llama to a model tree that has one for BEN2; NudeNet is the real one.

    Args:
        caption: what Florence-2 says of any picture.
    """
    from comfy_cpu_nodes.testing_florence2 import write_florence2_stand_in
    from comfy_cpu_nodes.testing_llama import write_llama_stand_in

    (tree / "llm").mkdir(exist_ok=True)
    write_llama_stand_in(tree / "llm" / GGUF)
    florence = tree / "LLM" / "Florence-2-base"
    shutil.rmtree(florence, ignore_errors=True)
    write_florence2_stand_in(florence, says=caption)
    return tree
