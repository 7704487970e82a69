from __future__ import annotations

from html.parser import HTMLParser

from comfy_cpu_client import ReportPicture, render_report
from comfy_cpu_core.results import ModelUse, NodeFailure, NodeTiming, Output, Result

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page(result: Result, **more: object) -> str:
    arguments: dict[str, object] = {"title": "A run", "pictures": [], "versions": {"Python": "3.11"}, **more}
    return render_report(result, **arguments)  # type: ignore[arg-type]


def test_everything_of_the_run_is_on_the_page() -> None:
    result = Result(
        "completed",
        outputs=[Output("9", "ShowText", "text", "t.txt", "text/plain", b'{"is_nsfw": false}')],
        timings=[NodeTiming("4", "Cut", 1.25), NodeTiming("5", "Resize", 0.0, cached=True)],
        models=[ModelUse("a/b.onnx", "openvino 1", "bf16", 2)],
        changes={"changes": [
            {"node_id": "4", "class_type": "Cut", "input": "provider", "old": "CUDA", "new": "CPU", "reason": "no GPU"}
        ]},
        warnings=["mind the gap"],
        execution_seconds=1.5,
    )  # fmt: skip
    text = page(result, pictures=[ReportPicture("before", "image/png", b"\x89PNG")], notes=["Photo: me"])
    for part in (
        "1.250",
        "(cached)",
        "a/b.onnx",
        "bf16",
        "CUDA",
        "no GPU",
        "mind the gap",
        "is_nsfw",
        "Photo: me",
        "3.11",
    ):
        assert part in text
    assert "data:image/png;base64,iVBORw==" in text
    assert "Not the real model" not in text


def test_a_stand_in_is_said_loudly() -> None:
    model = ModelUse("b.onnx", "openvino", "f32", 2, stand_in=True)
    text = page(Result("completed", models=[model], warnings=["b.onnx is a STAND-IN", "mind the gap"]))
    assert "Not the real model" in text
    assert "mind the gap" in text
    assert "STAND-IN" not in text, "it is said once"


def test_texts_have_headings() -> None:
    result = Result("completed", outputs=[Output("9", "ShowText", "text", "t.txt", "text/plain", b"hello")])
    assert ">ShowText <" in page(result)
    assert ">A caption <" in page(result, headings={"9": "A caption"})


def test_nothing_on_the_page_can_run_or_load() -> None:
    result = Result(
        "failed",
        outputs=[Output(EVIL, EVIL, "text", EVIL, "text/plain", EVIL.encode())],
        timings=[NodeTiming(EVIL, EVIL, 1)],
        errors=[NodeFailure("node_failed", EVIL, EVIL, EVIL, EVIL, EVIL)],
        models=[ModelUse(EVIL, EVIL, EVIL, 1, stand_in=True)],
        changes={"changes": [dict.fromkeys(("node_id", "class_type", "input", "old", "new", "reason"), EVIL)]},
        warnings=[EVIL],
    )
    picture = ReportPicture(EVIL, 'image/png" onload="alert(1)', b"x")
    tags = Tags(page(result, title=EVIL, pictures=[picture], versions={EVIL: EVIL}, notes=[EVIL])).found
    assert not [tag for tag, _ in tags if tag in {"script", "iframe", "object", "link", "base"}]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert next(attributes["src"] for tag, attributes in tags if tag == "img" and attributes["src"]).startswith("data:")
    assert len([tag for tag, _ in tags if tag == "img"]) == 1


def test_a_run_without_conversion_says_so() -> None:
    assert "left out" in page(Result("completed"))
    assert "ran as it was" in page(Result("completed", changes={"changes": []}))


def test_nodes_that_were_left_out_are_named() -> None:
    dropped = [
        {"node_id": "2", "class_type": "SomeGate", "reason": "bypassed"},
        {"node_id": "4", "class_type": "SomeNote", "reason": "note"},
    ]
    text = page(Result("completed", changes={"changes": [], "dropped": dropped}))
    assert "SomeGate" in text
    assert "SomeNote" not in text
