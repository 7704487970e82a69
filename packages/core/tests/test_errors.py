"""The tree of errors is what its docstring says."""

from __future__ import annotations

import inspect
import re

import pytest

from comfy_cpu_core import errors
from comfy_cpu_core.errors import ComfyCpuError, ContentBlocked, HubError, NodeError, WorkflowError, WorkflowInvalid

LINE = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?: +exit code)?(?: +(?P<code>\d+))?(?: {2,}.*)?$")


def documented() -> list[tuple[str, str | None, int]]:
    """Name, parent and exit code of every class in the docstring's tree; a class without a code has its parent's."""
    tree = (errors.__doc__ or "").partition("::\n")[2].partition("\n\nEvery")[0]
    found: list[tuple[str, str | None, int]] = []
    above: list[tuple[int, str, int]] = []
    for line in filter(str.strip, tree.splitlines()):
        match = LINE.match(line)
        assert match is not None, line
        depth = len(match["indent"])
        while above and above[-1][0] >= depth:
            above.pop()
        code = int(match["code"]) if match["code"] else above[-1][2]
        found.append((match["name"], above[-1][1] if above else None, code))
        above.append((depth, match["name"], code))
    return found


def test_every_class_is_documented_and_public() -> None:
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, ComfyCpuError)
    }
    names = [name for name, _, _ in documented()]
    assert len(names) == len(set(names))
    assert set(names) == classes == set(errors.__all__)


@pytest.mark.parametrize(("name", "parent", "code"), documented(), ids=str)
def test_parents_and_exit_codes(name: str, parent: str | None, code: int) -> None:
    error = getattr(errors, name)
    assert error.exit_code == code
    assert error.__bases__[0] is (Exception if parent is None else getattr(errors, parent))
    assert error.__doc__


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_one_line_and_may_have_a_remedy(name: str) -> None:
    error = getattr(errors, name)("node\n4 failed", remedy="look\r\nthere")
    assert str(error) == "node 4 failed"
    assert error.remedy == "look there"
    assert getattr(errors, name)("x").remedy is None


def test_what_some_errors_carry() -> None:
    assert WorkflowError("x", node_id="4").node_id == "4"
    assert HubError("x", status=404).status == 404
    node_errors = {"4": {"class_type": "A", "dependent_outputs": [], "errors": []}}
    invalid = WorkflowInvalid("x", node_errors=node_errors)
    assert invalid.node_errors == node_errors
    assert invalid.node_errors is not node_errors
    assert WorkflowInvalid("x").node_errors == {}
    failed = NodeError("x", node_id="4", class_type="A", details="Traceback\n  line")
    assert (failed.node_id, failed.class_type, failed.details) == ("4", "A", "Traceback\n  line")


def test_a_block_is_what_front_ends_know_it_by() -> None:
    with pytest.raises(ValueError, match="blocked"):
        raise ContentBlocked("blocked")
