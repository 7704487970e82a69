"""What plugins may say about an image, and what they may ask of one: the types of the image hooks.

The builder (`comfy_cpu_builder`) asks; it names no model family itself. `parts` is what goes into an image, `bake` what
is prepared at build time, `checks` what is looked at afterwards, `engines` what builds and runs it.
"""

from comfy_cpu_core.image.bake import BakedFile, BakeJob, BakeStep
from comfy_cpu_core.image.checks import Finding, ImageCheck, ImageFacts, WorkflowRun
from comfy_cpu_core.image.engines import (
    BuildEngine,
    BuildEngineType,
    BuildEvent,
    BuildRequest,
    CommandOutput,
    Container,
    ContainerRequest,
    EngineFeatures,
    ImageInfo,
)
from comfy_cpu_core.image.parts import ImageRequest, ImageStep, NodePack, StartPart

__all__ = [
    "BakeJob",
    "BakeStep",
    "BakedFile",
    "BuildEngine",
    "BuildEngineType",
    "BuildEvent",
    "BuildRequest",
    "CommandOutput",
    "Container",
    "ContainerRequest",
    "EngineFeatures",
    "Finding",
    "ImageCheck",
    "ImageFacts",
    "ImageInfo",
    "ImageRequest",
    "ImageStep",
    "NodePack",
    "StartPart",
    "WorkflowRun",
]
