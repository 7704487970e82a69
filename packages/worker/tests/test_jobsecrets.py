from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_worker.errors import JobRejected
from comfy_cpu_worker.jobsecrets import with_secrets, without_secrets

HUSH = "hush1234"


def job(**fields: Any) -> dict[str, Any]:
    return {"input": {"workflow": {"1": {"class_type": "X", "inputs": {"text": "a cat"}}}, **fields}}


def node(**inputs: Any) -> dict[str, Any]:
    return job(workflow={"4": {"class_type": "Caller", "inputs": inputs}})


def test_a_job_without_secrets_stays_as_it_is() -> None:
    document = job(
        images=[{"name": "token.png", "image": "AAAA"}],
        set={"1.max_tokens": 512, "1.keep": True, "1.seed": 5, "1.text": "write a poem about my password"},
        comfy_org_api_key="",
        timeout=5,
    ) | {"webhook": "https://example.com/hooks/done", "s3Config": None}
    kept, secrets = without_secrets(document)
    assert kept == document
    assert kept is not document
    assert secrets is None


@pytest.mark.parametrize(
    "document",
    [
        job(comfy_org_api_key=HUSH),
        job(s3={"access_key_id": HUSH, "secret_access_key": HUSH, "bucket": "b"}),
        job() | {"s3Config": {"accessId": HUSH, "accessSecret": HUSH, "bucketName": "b"}},
        job(set={"4.api_key": HUSH}),
        job(set={"4.openaiApiKey": HUSH}),
        job(set={"4.value": f"Bearer {HUSH}"}),
        job(set={"4.value": f"sk-{HUSH}-abcdefghijkl"}),
        job(set={"4.headers": {"Authorization": f"x {HUSH}"}} | {"4.secrets": [HUSH, {"a": HUSH}]}),
        node(api_key=HUSH),
        node(hf_token=HUSH),
        node(HF_TOKEN=HUSH),
        node(**{"auth token": HUSH}),
        node(password=HUSH),
        node(value=f"hf_{HUSH}ABCDEFGH"),
        node(url=f"https://user:{HUSH}@host/file"),
        job(workflow=json.dumps({"4": {"class_type": "Caller", "inputs": {"token": HUSH}}})),
        {"input": json.dumps({"workflow": {}, "comfy_org_api_key": HUSH})},
        {"input": f"not json {HUSH}"},
        job(workflow=f"{{not json {HUSH}"),
        job(images=[{"name": "a", "image": f"https://b.s3.amazonaws.com/a.png?X-Amz-Signature={HUSH}"}]),
        job(files=[{"name": "a", "url": f"https://host/a?sig={HUSH}"}]),
        job(inputs={"1.image": {"url": f"https://host/a?sig={HUSH}"}}),
        job() | {"webhook": f"https://user:{HUSH}@host/hook"},
        job() | {"webhook": f"https://host/hook?key={HUSH}"},
        job() | {"webhook": f"https://hooks.example.com/services/T000/B000/{HUSH}ABCDEFGHIJK"},
        job(workflow={"nodes": [{"type": "Caller", "inputs": [{"name": "api_key"}], "widgets_values": [1, HUSH]}]}),
        job(workflow={"nodes": [{"type": "X", "widgets_values": [f"sk-{HUSH}-abcdefghijkl", 0]}]}),
        job(workflow={"nodes": [{"type": "X", "inputs": [{"name": "password"}], "widgets_values": [HUSH, 0]}]}),
        node(api_key=[f"sk-{HUSH}-abcdefghijkl", 0]),
        job(workflow={"nodes": [{"type": "ApiKeyNode", "widgets_values": [HUSH]}]}),
        job(workflow={"nodes": [{"type": "X", "widgets_values": {"password": HUSH}}]}),
    ],
)
def test_no_secret_stays_and_each_comes_back(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    kept, secrets = without_secrets(document)
    assert document == before
    assert secrets
    assert HUSH not in json.dumps(kept)
    assert "hush" not in repr(secrets)
    whole = with_secrets(json.loads(json.dumps(kept)), secrets)
    assert HUSH in json.dumps(whole)
    expected = copy.deepcopy(document)
    for place, key in ((expected, "input"), (expected["input"], "workflow")):
        if isinstance(place, dict) and isinstance(place.get(key), str) and "not json" not in place[key]:
            place[key] = json.loads(place[key])
    assert whole == expected
    assert HUSH not in json.dumps(kept), "what was kept is not changed by putting the secrets back"


def test_a_connection_is_no_secret() -> None:
    kept, secrets = without_secrets(node(api_key=["3", 0]))
    assert kept["input"]["workflow"]["4"]["inputs"]["api_key"] == ["3", 0]
    assert secrets is None


def test_the_rest_of_the_document_stays() -> None:
    kept, _ = without_secrets(job(s3={"bucket": "b", "secret_access_key": HUSH}, timeout=5))
    assert kept["input"]["s3"] == {"bucket": "b", "secret_access_key": None}
    assert kept["input"]["timeout"] == 5


def test_keys_with_slashes() -> None:
    document = job(set={"a/b~c.token": HUSH})
    kept, secrets = without_secrets(document)
    assert secrets is not None
    assert list(secrets) == ["/input/set/a~1b~0c.token"]
    assert with_secrets(kept, secrets) == document


def test_absurd_nesting_is_rejected() -> None:
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(JobRejected, match="nested more than 120 levels deep"):
        without_secrets(job(set={"1.x": deep}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "token", "api/key", "api_key", "~", "input", "workflow"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["x", "s3Config", "webhook"]), JSON))
def test_whatever_is_taken_out_comes_back(document: dict[str, Any]) -> None:
    kept, secrets = without_secrets(document)
    assert with_secrets(kept, secrets or {}) == document
    again, more = without_secrets(kept)
    assert (again, more) == (kept, None)
