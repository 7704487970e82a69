from __future__ import annotations

import re

import pytest

from comfy_cpu_builder import values

NASTY = ["", "a b", "a\nb", "a;b", "a$b", "a`b`", "a'b", 'a"b', "-a", "a&b", "a|b", "a>b", "(a)", "a\\", "ä", "a\0"]
PATTERNS = {name: value for name, value in vars(values).items() if isinstance(value, re.Pattern) and name.isupper()}


@pytest.mark.parametrize("name", sorted(PATTERNS))
@pytest.mark.parametrize("text", NASTY)
def test_nothing_that_means_something_to_a_shell_passes(name: str, text: str) -> None:
    assert PATTERNS[name].fullmatch(text) is None


@pytest.mark.parametrize(
    "name",
    [
        "python",
        "python:3.11-slim",
        "localhost/base:test",
        "localhost:5000/a/b_c.d:1",
        "registry.example/me/image",
        f"python:3@sha256:{'0' * 64}",
    ],
)
def test_names_of_images(name: str) -> None:
    assert values.IMAGE_NAME.fullmatch(name)


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a b", "/a\nb", "/a$b", ""])
def test_paths_that_will_not_do(path: str) -> None:
    assert not values.is_absolute_path(path)


def test_a_path_that_will_do() -> None:
    assert values.is_absolute_path("/opt/x-1.0/y_z+a.txt")
