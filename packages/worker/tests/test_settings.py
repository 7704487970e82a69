from __future__ import annotations

from pathlib import Path

import pytest

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.settings import WorkerSettings


def test_without_anything_the_defaults_hold() -> None:
    settings = WorkerSettings.from_environ({"XDG_DATA_HOME": "/data"})
    assert (settings.host, settings.port, settings.endpoint) == ("127.0.0.1", 8000, "local")
    assert settings.models == Path("/data/comfy-cpu/models")
    assert (settings.token, settings.urls, settings.webhooks, settings.workflows) == (None, None, None, None)
    assert (settings.backend, settings.warm_up, settings.refresh_worker) == ("engine", True, False)
    assert (settings.run_bytes, settings.runsync_bytes) == (10_000_000, 20_000_000)
    assert (settings.keep_s, settings.keep_sync_s) == (1800, 60)


def test_every_variable_is_read() -> None:
    settings = WorkerSettings.from_environ(
        {
            "COMFY_CPU_HOST": "::1", "COMFY_CPU_PORT": "0", "COMFY_CPU_ENDPOINT": "mine", "COMFY_CPU_TOKEN": " t ",
            "COMFY_CPU_MODELS": "~/models", "COMFY_CPU_WORKFLOWS": "/flows", "COMFY_CPU_STATE": "/state",
            "COMFY_CPU_QUEUE": "7", "COMFY_CPU_KEEP": "10", "COMFY_CPU_KEEP_SYNC": "1.5", "COMFY_CPU_KEEP_BYTES": "99",
            "COMFY_CPU_TTL": "60", "COMFY_CPU_GRACE": "3", "COMFY_CPU_BACKEND": "ComfyUI", "COMFYUI_PATH": "/comfyui",
            "COMFY_CPU_WARM_UP": "no", "COMFY_CPU_TIMEOUT": "5", "COMFY_CPU_MAX_TIMEOUT": "50",
            "COMFY_CPU_RUN_BYTES": "1000", "COMFY_CPU_RUNSYNC_BYTES": "2000", "COMFY_CPU_ALLOW_REMOTE": "1",
            "COMFY_CPU_ALLOW_HOSTS": "a.example, b.example,", "REFRESH_WORKER": "true", "COMFY_LOG_LEVEL": "debug",
            "COMFY_ORG_API_KEY": "key", "RUNPOD_POD_ID": "pod",
            "COMFY_CPU_URLS": "true", "COMFY_CPU_WEBHOOKS": "on", "COMFY_CPU_URL_HOSTS": "x.example",
            "COMFY_CPU_URL_DENY_HOSTS": "y.example", "COMFY_CPU_URL_PRIVATE": "true", "COMFY_CPU_URL_CA_FILE": "/ca",
            "COMFY_CPU_REENCODE": "webp", "COMFY_CPU_QUALITY": "70", "COMFY_CPU_OUTPUT_BYTES": "5000",
            "COMFY_CPU_JOB_BUCKETS": "false",
        }
    )  # fmt: skip
    assert (settings.host, settings.port, settings.endpoint, settings.token) == ("::1", 0, "mine", "t")
    assert settings.models == Path.home() / "models"
    assert (settings.workflows, settings.state, settings.comfyui) == (Path("/flows"), Path("/state"), Path("/comfyui"))
    assert (settings.queue, settings.keep_s, settings.keep_sync_s, settings.keep_bytes) == (7, 10, 1.5, 99)
    assert (settings.ttl_s, settings.grace_s, settings.backend, settings.warm_up) == (60, 3, "comfyui", False)
    assert (settings.limits.timeout_s, settings.limits.max_timeout_s) == (5, 50)
    assert (settings.run_bytes, settings.runsync_bytes, settings.allow_remote) == (1000, 2000, True)
    assert settings.allow_hosts == ("a.example", "b.example")
    assert (settings.refresh_worker, settings.log_level, settings.worker_id) == (True, "DEBUG", "pod")
    assert settings.comfy_org_api_key == "key"
    assert settings.urls == settings.webhooks
    assert settings.limits.urls
    assert settings.urls is not None
    assert (settings.urls.allow_hosts, settings.urls.deny_hosts) == (("x.example",), ("y.example",))
    assert (settings.urls.allow_private, settings.urls.ca_file) == (True, Path("/ca"))
    assert (settings.delivery.reencode, settings.delivery.quality) == ("webp", 70)
    assert (settings.delivery.output_bytes, settings.delivery.job_buckets) == (5000, None)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COMFY_CPU_PORT", "65536"), ("COMFY_CPU_PORT", "http"), ("COMFY_CPU_QUEUE", "0"), ("COMFY_CPU_KEEP", "0"),
        ("COMFY_CPU_KEEP_SYNC", "soon"), ("COMFY_CPU_GRACE", "nan"), ("COMFY_CPU_TIMEOUT", "0"),
        ("COMFY_CPU_TTL", "inf"), ("COMFY_CPU_BACKEND", "gpu"), ("COMFY_CPU_WARM_UP", "maybe"),
        ("COMFY_CPU_RUN_BYTES", "10MB"), ("COMFY_LOG_LEVEL", "loud"), ("COMFY_CPU_QUALITY", "101"),
        ("COMFY_CPU_REENCODE", "gif"), ("REFRESH_WORKER", "2"), ("SERVE_API_LOCALLY", "here"),
        ("COMFY_CPU_KEEP_BYTES", "1e9"), ("COMFY_CPU_URLS", "public"),
    ],
)  # fmt: skip
def test_a_bad_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable) as caught:
        WorkerSettings.from_environ({variable: value})
    assert variable in (caught.value.remedy or "")


def test_a_timeout_beyond_the_longest_is_refused() -> None:
    with pytest.raises(UsageError, match="COMFY_CPU_MAX_TIMEOUT"):
        WorkerSettings.from_environ({"COMFY_CPU_TIMEOUT": "100", "COMFY_CPU_MAX_TIMEOUT": "50"})
    assert WorkerSettings.from_environ({"COMFY_CPU_MAX_TIMEOUT": "50"}).limits.timeout_s == 50


def test_options_go_before_variables() -> None:
    settings = WorkerSettings.from_environ({"COMFY_CPU_PORT": "1", "COMFY_CPU_QUEUE": "2"}, port=3, queue=None)
    assert (settings.port, settings.queue) == (3, 2)


def test_serve_api_locally_listens_as_the_reference_image_does() -> None:
    settings = WorkerSettings.from_environ({"SERVE_API_LOCALLY": "true"})
    assert (settings.host, settings.allow_remote) == ("0.0.0.0", True)
    settings = WorkerSettings.from_environ({"SERVE_API_LOCALLY": "true", "COMFY_CPU_HOST": "127.0.0.1"})
    assert settings.host == "127.0.0.1"


def test_the_bucket_comes_from_the_reference_variables() -> None:
    settings = WorkerSettings.from_environ(
        {
            "BUCKET_ENDPOINT_URL": "https://bucket.s3.eu-west-1.amazonaws.com",
            "BUCKET_ACCESS_KEY_ID": "id",
            "BUCKET_SECRET_ACCESS_KEY": "secret",
        }
    )
    assert settings.delivery.s3 is not None
    assert settings.delivery.s3.bucket == "bucket"


def test_secrets_are_not_in_the_repr() -> None:
    settings = WorkerSettings.from_environ({"COMFY_CPU_TOKEN": "s3cret-token", "COMFY_ORG_API_KEY": "s3cret-key"})
    assert "s3cret" not in repr(settings)
