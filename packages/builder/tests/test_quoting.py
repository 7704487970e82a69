from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_builder import quoting
from comfy_cpu_core.errors import BuildError

printable = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "))


@given(st.lists(printable, min_size=1))
def test_exec_form_is_the_arguments_themselves(command: list[str]) -> None:
    text = quoting.argv(command)
    assert json.loads(text) == command
    assert "<<" not in text
    assert text.isascii()


@given(printable)
def test_a_word_reaches_the_program_as_it_is(value: str) -> None:
    done = subprocess.run(["sh", "-c", f"printf %s {quoting.shell(value)}"], check=True, capture_output=True)
    assert done.stdout.decode() == value


def test_what_docker_would_replace_is_escaped() -> None:
    assert quoting.quoted('a "b" $c \\') == '"a \\"b\\" \\$c \\\\"'


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\x1b[0m"])
def test_what_would_begin_another_line_is_refused(value: str) -> None:
    with pytest.raises(BuildError):
        quoting.quoted(value)
    with pytest.raises(BuildError):
        quoting.shell(value)
