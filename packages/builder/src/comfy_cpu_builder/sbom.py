"""The software bill of materials of an image: CycloneDX, with the licences and hashes of packages and models."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from comfy_cpu_builder.layout import SOURCE_DATE_EPOCH

if TYPE_CHECKING:
    from comfy_cpu_builder.lock import Lock
    from comfy_cpu_builder.plan import Plan

__all__ = ["sbom_text"]

_NAMESPACE = uuid.UUID("6f6d1a4e-6a53-5a39-9a4b-0c0f1f0c9d51")


def sbom_text(plan: Plan, lock: Lock) -> str:
    """The SBOM as JSON, in CycloneDX 1.6. The same lock gives the same text: its serial number comes from the lock."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, lock.digest))
    bom.metadata.timestamp = datetime.fromtimestamp(SOURCE_DATE_EPOCH, UTC)
    name = plan.tags[0] if plan.tags else f"comfy-cpu {plan.target}"
    bom.metadata.component = Component(name=name, type=ComponentType.CONTAINER, bom_ref="image")
    for component in (_base(lock), *_packages(lock), *_models(lock), *_sources(lock)):
        bom.components.add(component)
    bom.register_dependency(bom.metadata.component, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _base(lock: Lock) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    digest = lock.base.digest or lock.base.image_id
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))] if digest else []
    return Component(name=lock.base.name, type=ComponentType.CONTAINER, hashes=hashes, bom_ref="base")


def _packages(lock: Lock) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return [
        Component(
            name=package.name,
            version=package.version,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=package.name, version=package.version),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
            licenses=_licence(package.licence),
            bom_ref=f"python:{package.name}",
        )
        for package in lock.packages
    ]


def _models(lock: Lock) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    found = []
    for model in lock.models:
        files = [
            Component(
                name=file.target,
                type=ComponentType.FILE,
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=str(file.sha256))],
                properties=[Property(name="comfy-cpu:size", value=str(file.size))],
                bom_ref=f"model:{model.id}:{file.target}",
            )
            for file in model.files
        ]
        found.append(
            Component(
                name=model.id,
                version=model.revision,
                type=ComponentType.MACHINE_LEARNING_MODEL,
                description=model.notice or None,
                licenses=_licence(model.licence),
                properties=[Property(name="comfy-cpu:source", value=model.source)],
                components=files,
                bom_ref=f"model:{model.id}",
            )
        )
    return found


def _sources(lock: Lock) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(
            name=source.name,
            version=source.commit,
            type=ComponentType.APPLICATION,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=source.sha256)],
            licenses=_licence(source.licence),
            properties=[Property(name="comfy-cpu:source", value=source.source)],
            bom_ref=f"source:{source.name}",
        )
        for source in lock.sources
    ]


def _licence(text: str) -> list[Any]:
    """A licence as CycloneDX has it: an SPDX identifier or expression where it is one, else its name."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(text)] if text else []
