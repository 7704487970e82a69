from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_worker.errors import JobRejected, JobTooLarge, UrlRefused
from comfy_cpu_worker.inputs import decode_base64, prepare_work
from comfy_cpu_worker.job import JobLimits, parse_job
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.wire import Deadline
from comfy_cpu_worker.work import Work

PNG = b"\x89PNG\r\n\x1a\nrest"
LIMITS = JobLimits(file_bytes=100, total_bytes=150, urls=True)
WORKFLOW = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}


def b64(data: bytes = PNG) -> str:
    return base64.b64encode(data).decode()


def work(shelf: Path | None = None, **fields: Any) -> Work:
    job = parse_job({"input": {"workflow": WORKFLOW, **fields}}, LIMITS)
    return prepare_work("job-1", job, shelf=Shelf(shelf), limits=LIMITS, urls=None, deadline=Deadline(60))


def image(name: str, data: str | None = None) -> dict[str, str]:
    return {"name": name, "image": b64() if data is None else data}


def test_a_whole_job(tmp_path: Path) -> None:
    (tmp_path / "cut_out.json").write_text(json.dumps(WORKFLOW))
    made = work(
        tmp_path,
        workflow="cut_out",
        images=[image("a.png"), image("faces/b.png", f"data:image/png;base64,{b64(b'b')}")],
        inputs={"1.image": {"name": "photo.jpg", "data": b64(b"c")}, "2.image": b64()},
        set={"1.x": [1, 2]},
        convert=False,
        comfy_org_api_key="hush",
    )
    assert (made.job_id, made.workflow, made.convert, made.comfy_org_api_key) == ("job-1", WORKFLOW, False, "hush")
    assert made.files == {"a.png": PNG, "faces/b.png": b"b"}
    assert made.values == {"1.x": [1, 2]}
    assert {key: (file.name, file.data) for key, file in made.inputs.items()} == {
        "1.image": ("photo.jpg", b"c"),
        "2.image": ("2.image.png", PNG),
    }
    assert made.timeout_s is not None
    assert 0 < made.timeout_s <= 60
    assert "hush" not in repr(made)


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (PNG, ".png"),
        (b"\xff\xd8\xff\xe0", ".jpg"),
        (b"RIFF1234WEBPVP8", ".webp"),
        (b"RIFF1234WAVE", ".wav"),
        (b"?", ".bin"),
    ],
)
def test_a_name_is_made_up_by_what_the_file_is(data: bytes, suffix: str) -> None:
    assert work(inputs={"1.image": b64(data)}).inputs["1.image"].name == f"1.image{suffix}"


# Base64 ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=100), st.sampled_from(["", "\n", " ", "\r\n", "\t"]))
def test_base64_with_white_space_anywhere(data: bytes, space: str) -> None:
    assert decode_base64(space.join(b64(data)), "x") == data


@pytest.mark.parametrize(
    "header",
    [
        "data:image/png;base64,",
        "DATA:image/png;BASE64,",
        "data:;base64,",
        "data:image/svg+xml;charset=utf-8;base64,",
    ],
)
def test_data_uris(header: str) -> None:
    assert decode_base64(header + b64(), "x") == PNG


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "x is empty"),
        ("   ", "x is empty"),
        ("data:image/png;base64,", "x is empty"),
        ("AAA", "x is not base64: Incorrect padding"),
        ("A", "x is not base64: "),
        ("AA=A", "x is not base64: "),
        ("====", "x is not base64: "),
        ("AAAA====AAAA", "x is not base64: "),
        ("AA-_", "x is not base64: "),
        ("AAA!", "x is not base64: "),
        ("AAAé", "x is not base64: it has other characters in it"),
        ("AAA\u2028A", "x is not base64|"),
        ("\ud800", "x is not base64: it has other characters in it"),
        ("data:image/png,%89PNG", "x is a data URI without base64"),
        ("data:text/plain;base64;base64,AAAA", "x is a data URI without base64"),
        ("data:", "x is a data URI without base64"),
        ("/etc/passwd", "x is not base64: "),
        ("file:///etc/passwd", "x is not base64: "),
    ],
)
def test_what_is_not_base64(text: str, problem: str) -> None:
    if problem.endswith("|"):  # the separator of lines is white space
        assert decode_base64(text, "x") == b"\0\0\0"
        return
    with pytest.raises(JobRejected) as caught:
        decode_base64(text, "x")
    assert str(caught.value).startswith(problem)


def test_an_error_names_the_field() -> None:
    with pytest.raises(JobRejected, match=r"^input\.images\[1\]\.image is not base64"):
        work(images=[image("a.png"), image("b.png", "%%%")])
    with pytest.raises(JobRejected, match=r'^input\.inputs\["1\.image"\]\.data is empty'):
        work(inputs={"1.image": {"data": ""}})


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_sizes_count_decoded() -> None:
    made = work(images=[image("a.png", b64(b"a" * 100)), image("b.png", b64(b"b" * 50))])
    assert sum(map(len, made.files.values())) == 150
    with pytest.raises(JobTooLarge, match=r"^input\.images\[0\]\.image has 101 bytes; at most 100 are taken"):
        work(images=[image("a.png", b64(b"a" * 101))])
    with pytest.raises(JobTooLarge, match="more than 150 bytes in all"):
        work(images=[image("a.png", b64(b"a" * 100))], inputs={"1.image": b64(b"b" * 51)})


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../a.png", "a/../../b.png", "/etc/passwd", "C:\\a.png", "C:a.png", "a\\b.png", "a\0.png", "a\nb.png", "..", ".",
        "./a.png", "a//b.png", "a/", "con", "NUL.png", "a" * 256, "x/" * 600 + "a", "a.png [output]", "a.png[temp]",
        "\x7f.png",
    ],
)  # fmt: skip
def test_bad_names(name: str) -> None:
    with pytest.raises(JobRejected, match=r"^input\.images\[0\]\.name: '"):
        work(images=[image(name)])


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("a.png", "a.png"), "is the name of another file, too"),
        (("a", "a/b"), "is at once a file and a folder"),
        (("a/b", "a"), "is at once a file and a folder"),
    ],
)
def test_names_that_exclude_each_other(names: tuple[str, str], problem: str) -> None:
    with pytest.raises(JobRejected, match=rf"^input\.files\[0\]\.name: .* {problem}"):
        work(images=[image(names[0])], files=[{"name": names[1], "data": b64()}])


def test_names_in_other_scripts() -> None:
    assert set(work(images=[image("фото.png"), image("写真 1.png")]).files) == {"фото.png", "写真 1.png"}


def test_urls_without_a_client_are_refused() -> None:
    with pytest.raises(UrlRefused, match=r"^input\.images\[0\]\.image is a URL, and this worker fetches none"):
        work(images=[image("a.png", "https://host/a.png")])


def test_an_unknown_workflow_of_the_shelf() -> None:
    with pytest.raises(JobRejected, match="no workflow 'x' is baked into this worker"):
        work(workflow="x")


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys, comfy_cpu_worker.inputs, comfy_cpu_worker.job, comfy_cpu_worker.delivery;"
        "print({'numpy', 'PIL', 'torch', 'openvino', 'requests', 'urllib3', 'boto3', 'botocore'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
