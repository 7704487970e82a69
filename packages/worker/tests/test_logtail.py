from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_worker.logtail import MAX_LINE, LogTail


def test_the_last_lines_are_kept() -> None:
    tail = LogTail(2)
    assert tail.feed(b"one\ntwo\n\nth") == ["one", "two"]
    assert tail.feed(b"ree\n") == ["three"]
    assert tail.lines == ("two", "three")


def test_the_end_of_the_stream_ends_a_line() -> None:
    tail = LogTail(9)
    tail.feed(b"half a l")
    assert tail.finish() == ["half a l"]
    assert tail.finish() == []


def test_progress_bars_and_colours() -> None:
    tail = LogTail(9)
    tail.feed(b"\x1b[31mred\x1b[0m\r 10%\r 20%\r\n\x1b[2Kdone\x07\x9b\n")
    assert tail.lines == ("red", " 10%", " 20%", "done�")


def test_a_long_line_is_cut() -> None:
    tail = LogTail(9)
    for _ in range(100):
        tail.feed(b"x" * MAX_LINE)
    (line,) = tail.finish()
    assert line == "x" * MAX_LINE + " …"


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_give_printable_lines(chunks: list[bytes]) -> None:
    tail = LogTail(5)
    for chunk in chunks:
        tail.feed(chunk)
    tail.finish()
    assert len(tail.lines) <= 5
    assert all(line.strip() and "\n" not in line and "\x1b" not in line for line in tail.lines)


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1).map(lambda text: text.encode()), st.data())
def test_how_the_stream_is_cut_does_not_matter(line: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(line)))
    whole, parts = LogTail(9), LogTail(9)
    whole.feed(line + b"\n")
    parts.feed(line[:cut])
    parts.feed(line[cut:] + b"\n")
    assert parts.lines == whole.lines
