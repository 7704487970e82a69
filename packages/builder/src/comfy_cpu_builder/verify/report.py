"""What came of a verification."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from comfy_cpu_core.image import Finding, ImageCheck, ImageFacts

__all__ = ["CheckResult", "Verification", "run_checks"]


@dataclass(frozen=True)
class CheckResult:
    """What a check found."""

    name: str
    summary: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether all of it is as it should be."""
        return all(finding.ok for finding in self.findings)


@dataclass(frozen=True)
class Verification:
    """What all checks found of an image."""

    image: str
    results: tuple[CheckResult, ...]
    facts: ImageFacts

    @property
    def ok(self) -> bool:
        """Whether the image passes."""
        return all(result.ok for result in self.results)

    @property
    def problems(self) -> list[str]:
        """What is wrong, one line each, with the check's name in front."""
        return [f"{r.name}: {finding.message}" for r in self.results for finding in r.findings if not finding.ok]

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it. Fields are only ever added."""
        facts = self.facts
        return {
            "image": self.image,
            "ok": self.ok,
            "problems": self.problems,
            "checks": [
                {"name": r.name, "summary": r.summary, "ok": r.ok, "findings": [vars(f) for f in r.findings]}
                for r in self.results
            ],
            "size": facts.info.size,
            "layers": [{"made_by": made_by, "size": size} for made_by, size in facts.info.layers],
            "start_seconds": facts.start_seconds,
            "peak_memory_bytes": facts.peak_memory_bytes,
            "runs": [vars(run) for run in facts.runs],
        }


def run_checks(image: str, checks: Iterable[ImageCheck], facts: ImageFacts) -> Verification:
    """Let every check look at the facts; one that raises has found something wrong."""
    results = []
    for check in sorted(checks, key=lambda check: check.name):
        try:
            findings = tuple(check.run(facts))
        except Exception as error:
            findings = (Finding(False, f"the check failed: {type(error).__name__}: {error}"),)
        results.append(CheckResult(check.name, check.summary, findings))
    return Verification(image, tuple(results), facts)
