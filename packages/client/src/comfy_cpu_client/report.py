"""A run as one HTML page that needs nothing else: pictures inside, no script, no link to the outside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comfy_cpu_client.pages import page_template
from comfy_cpu_core.results import NodeTiming, Output, Result

__all__ = ["ReportPicture", "render_report"]


@dataclass(frozen=True)
class ReportPicture:
    """A picture on the page.

    Attributes:
        caption: what stands below it.
        media_type: for example ``image/png``.
        data: its bytes.
    """

    caption: str
    media_type: str
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, output: Output, caption: str | None = None) -> ReportPicture:
        """A picture that a run made."""
        default = f"{output.class_type} (node {output.node_id}): {output.filename}"
        return cls(caption or default, output.media_type, output.data)

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class _Bar:
    timing: NodeTiming
    percent: float


def render_report(
    result: Result,
    *,
    title: str,
    pictures: Sequence[ReportPicture],
    versions: Mapping[str, str],
    notes: Sequence[str] = (),
    headings: Mapping[str, str] | None = None,
) -> str:
    """Render a result as a self-contained HTML page.

    Args:
        result: the run.
        title: the page's heading.
        pictures: what to show, in order: the input first, as a rule.
        versions: name → version of what made the result.
        notes: lines below the heading: where a photo comes from, and the like.
        headings: node id → what to call the text that this node shows; its class_type if it is not named here.

    Everything that comes from a workflow or a file is escaped.
    """
    stand_ins = [model for model in result.models if model.stand_in]
    longest = max((timing.seconds for timing in result.timings), default=0.0) or 1.0
    return page_template("report.html").render(
        result=result,
        title=title,
        pictures=pictures,
        texts=[output for output in result.outputs if output.kind in {"text", "json"}],
        headings=headings or {},
        # The page says in its own words, and larger, that a stand-in was used.
        warnings=[text for text in result.warnings if not any(model.name in text for model in stand_ins)],
        bars=[_Bar(timing, 100 * timing.seconds / longest) for timing in result.timings],
        changes=(result.changes or {}).get("changes", ()),
        converted=result.changes is not None,
        left_out=[n for n in (result.changes or {}).get("dropped", ()) if n["reason"] in {"muted", "bypassed"}],
        versions=versions,
        notes=notes,
    )
