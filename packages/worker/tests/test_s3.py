from __future__ import annotations

import pytest

from comfy_cpu_core.results import Output
from comfy_cpu_worker.s3 import object_keys


def output(filename: str, subfolder: str = "") -> Output:
    return Output("9", "SaveImage", "image", filename, "image/png", b"", subfolder=subfolder)


def test_keys_tell_outputs_apart() -> None:
    made = [output("a.png"), output("a.png"), output("a.png", "x/y"), output("a.png"), output("a-2.png")]
    assert object_keys("job-1", made, "") == [
        "job-1/a.png",
        "job-1/a-2.png",
        "job-1/x/y/a.png",
        "job-1/a-3.png",
        "job-1/a-2-2.png",
    ]
    assert object_keys("job-1", made[:1], "all/jobs") == ["all/jobs/job-1/a.png"]


@pytest.mark.parametrize(
    ("job_id", "filename", "subfolder", "key"),
    [
        ("../other", "a.png", "", "p/.._other/a.png"),
        ("..", "..", "../..", "p/_/_"),
        (".", "a.png", "/abs/./x", "p/_/abs/x/a.png"),
        ("j", "写真.png", "é", "p/j/_/_.png"),
        ("j", "a b?c#d%2f.png", "", "p/j/a_b_c_d_2f.png"),
        ("j", "a\r\nX-Evil: y", "", "p/j/a_X-Evil_y"),
        ("j", "x" * 500, "", f"p/j/{'x' * 150}"),
        ("", "", "", "p/_/_"),
    ],
)
def test_no_key_leads_anywhere_else(job_id: str, filename: str, subfolder: str, key: str) -> None:
    assert object_keys(job_id, [output(filename, subfolder)], "p") == [key]
