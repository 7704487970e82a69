from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fake_runner import FakeBackend
from openapi_spec_validator import validate

from comfy_cpu_worker import errors
from comfy_cpu_worker.api.app import api_routes
from comfy_cpu_worker.api.probes import openapi_document
from comfy_cpu_worker.job import JobLimits, parse_job
from comfy_cpu_worker.outcome import progress_document
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf

DOCUMENT = openapi_document()
METHODS = ("get", "post", "put", "delete", "patch")


def resolve(item: Any) -> Any:
    """What a ``$ref`` stands for."""
    while isinstance(item, dict) and "$ref" in item:
        found: Any = DOCUMENT
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        item = found
    return item


def check(value: Any, schema: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def operations() -> Iterator[tuple[str, str, Any]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def examples(where: str, item: Any) -> Iterator[tuple[str, Any, Any]]:
    """(where, example, schema) of everything that has a schema below an operation."""
    item = resolve(item)
    if isinstance(item, list):
        for number, inner in enumerate(item):
            yield from examples(f"{where}[{number}]", inner)
    elif isinstance(item, dict):
        if "schema" in item:
            given = [resolve(example)["value"] for example in item.get("examples", {}).values()]
            given += [item["example"]] if "example" in item else []
            yield where, given, item["schema"]
        else:
            for name, inner in item.items():
                yield from examples(f"{where}.{name}", inner)


# The paths without an endpoint have the same.
EXAMPLES = [
    found
    for path, method, operation in operations()
    if not operation["operationId"].endswith("WithoutEndpoint")
    for found in examples(f"{method} {path}", operation)
]


def test_it_is_openapi() -> None:
    validate(DOCUMENT)


def test_every_route_is_in_it_and_nothing_else() -> None:
    routes = api_routes(WorkerSettings(), None, FakeBackend(), Shelf(None))  # type: ignore[arg-type]
    served = {(route.path, method.lower()) for route in routes for method in route.methods or () if method != "HEAD"}
    assert {(path, method) for path, method, _ in operations()} == served


@pytest.mark.parametrize(("where", "given", "schema"), EXAMPLES, ids=[where for where, _, _ in EXAMPLES])
def test_every_example_validates(where: str, given: list[Any], schema: Any) -> None:
    assert given, "there is no example"
    for example in given:
        check(example, schema)


def test_the_examples_of_jobs_are_jobs() -> None:
    given = DOCUMENT["components"]["requestBodies"]["job"]["content"]["application/json"]["examples"]
    for example in given.values():
        parse_job(example["value"], JobLimits())


def test_the_schema_of_a_job_refuses_what_is_none() -> None:
    for bad in ({}, {"input": {}}, {"input": 1}, {"input": {"workflow": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            check(bad, {"$ref": "#/components/schemas/Job"})


def test_progress_is_as_described() -> None:
    from comfy_cpu_core.results import Progress

    event = Progress("step", node_id="1", class_type="X", value=1, total=2, done=0, nodes=3)
    document = progress_document(event)
    check(document, {"$ref": "#/components/schemas/Progress"})
    assert set(document) == set(DOCUMENT["components"]["schemas"]["Progress"]["properties"])


def test_every_error_code_is_listed() -> None:
    codes = {getattr(errors, name).code for name in errors.__all__}
    assert codes | {"http"} == set(DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"])
