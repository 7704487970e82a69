from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.batch.inputs import BatchInput
from comfy_cpu_client.batch.naming import digest_of, folder_name
from comfy_cpu_core.names import check_name


@given(st.text())
def test_a_folder_is_safe_everywhere(label: str) -> None:
    name = folder_name(label, digest_of("file", label))
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*-[0-9a-f]{16}", name)
    assert len(name) < 100
    assert str(check_name(name)) == name


@given(st.dictionaries(st.text(), st.text(), max_size=50))
def test_two_inputs_never_share_a_folder(labels: dict[str, str]) -> None:
    folders = {BatchInput("file", label, {"1.image": path}).folder.casefold() for path, label in labels.items()}
    assert len(folders) == len(labels)


def test_names_are_readable_and_the_same_every_time() -> None:
    one = BatchInput("file", "cat photo.jpg", {"1.image": "/photos/cat photo.jpg"})
    assert re.fullmatch(r"cat_photo-[0-9a-f]{16}", one.folder)
    assert one.folder == BatchInput("file", "cat photo.jpg", {"1.image": "/photos/cat photo.jpg"}).folder


def test_the_same_name_elsewhere_and_in_capitals_is_another_folder() -> None:
    folders = {
        BatchInput("file", label, {"1.image": path}).folder.casefold()
        for label, path in [("a.png", "/x/a.png"), ("A.png", "/x/A.png"), ("a.png", "/y/a.png"), ("a.jpg", "/x/a.jpg")]
    }
    assert len(folders) == 4
