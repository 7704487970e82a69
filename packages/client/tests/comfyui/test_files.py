from __future__ import annotations

import copy
import hashlib
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.comfyui.files import FileUse, find_uses, name_files, plan_upload
from comfy_cpu_core.nodes import NodeSignature

DECLARED: dict[str, dict[str, Any]] = {
    "LoadImage": {"image": (["a.png"], {"image_upload": True})},
    "LoadVideo": {"file": ("COMBO", {"video_upload": True})},
    "ByPath": {"path": ("STRING", {})},
    "Show": {"text": ("STRING", {"multiline": True})},
}


def signature(class_type: str) -> NodeSignature | None:
    declared = DECLARED.get(class_type)
    return None if declared is None else NodeSignature.from_object_info(class_type, {"input": {"required": declared}})


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def uses(prompt: dict[str, Any], *files: str) -> set[tuple[str, str, str]]:
    found = find_uses(prompt, dict.fromkeys(files, b""), signature)
    assert len(found) == len(set(found))
    return {(use.node_id, use.input, use.file) for use in found}


def test_inputs_that_offer_files_are_meant_and_texts_that_are_the_same_are_not() -> None:
    prompt = {
        "1": node("LoadImage", image="a.png"),
        "2": node("Show", text="a.png"),
        "3": node("LoadVideo", file="b.mp4 [input]"),
        "4": node("LoadImage", image="server.png"),
        "5": node("LoadImage", image=["1", 0]),
    }
    assert uses(prompt, "a.png", "b.mp4") == {("1", "image", "a.png"), ("3", "file", "b.mp4")}


def test_a_file_that_no_such_input_names_is_meant_by_any_text() -> None:
    assert uses({"1": node("ByPath", path="a.png"), "2": node("Show", text="b.png")}, "a.png") == {
        ("1", "path", "a.png")
    }


def test_of_an_unknown_class_anything_may_be_a_file() -> None:
    assert uses({"1": node("Unknown", what="a.png"), "2": node("Show", text="a.png")}, "a.png") == {
        ("1", "what", "a.png")
    }


def test_a_file_of_another_folder_is_not_the_request_s() -> None:
    assert uses({"1": node("LoadImage", image="a.png [output]")}, "a.png") == set()


def test_classes_are_asked_about_only_where_they_name_a_file() -> None:
    asked: list[str] = []
    find_uses({"1": node("LoadImage", image="a.png"), "2": node("Show", text="b")}, {"a.png": b""}, asked.append)
    assert asked == ["LoadImage"]


def test_naming_changes_a_copy() -> None:
    prompt = {"1": node("LoadImage", image="a.png"), "2": node("Show", text="a.png")}
    before = copy.deepcopy(prompt)
    named = name_files(prompt, {FileUse("1", "image", "a.png"): "x/a-1.png"})
    assert prompt == before
    assert named == {"1": node("LoadImage", image="x/a-1.png"), "2": node("Show", text="a.png")}


@given(st.text(), st.binary(max_size=20))
def test_the_name_of_an_upload_is_harmless_and_holds_the_hash(name: str, data: bytes) -> None:
    upload = plan_upload(name, data, "comfy-cpu")
    assert re.fullmatch(r"[A-Za-z0-9][\w.\-]*|_*[\w.\-]+", upload.filename, re.ASCII)
    assert ".." not in upload.filename.rpartition(hashlib.sha256(data).hexdigest()[:20])[0][:2]
    assert hashlib.sha256(data).hexdigest()[:20] in upload.filename
    assert len(upload.filename) < 150
    assert upload.name == f"comfy-cpu/{upload.filename}"


def test_the_suffix_stays_for_nodes_that_look_at_it() -> None:
    assert re.fullmatch(r"photo-[0-9a-f]{20}\.jpg", plan_upload("faces/photo.jpg", b"x", "").name)
    assert plan_upload("a.png", b"1", "f").name != plan_upload("a.png", b"2", "f").name
