"""What a worker is told before it starts: environment variables, and the command line's options, which go before them."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from comfy_cpu_core.errors import UsageError
from comfy_cpu_core.tree import default_models_dir
from comfy_cpu_worker.bucket import s3_from_environ
from comfy_cpu_worker.delivery import DeliveryPolicy
from comfy_cpu_worker.environment import Environment
from comfy_cpu_worker.job import JobLimits
from comfy_cpu_worker.urls import UrlPolicy

__all__ = ["BackendName", "LogLevel", "WorkerSettings"]

BackendName = Literal["engine", "comfyui"]

#: In the order of their numbers; those of Python's logging, and of ComfyUI's ``--verbose``.
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class WorkerSettings:
    """Everything that the worker can be told. Times are in seconds.

    Attributes:
        backend: what runs the workflows.
        models: the model tree.
        workflows: a directory of workflows that jobs may name; None for none.
        comfyui: where ComfyUI is, for the back end of that name.
        warm_up: whether the models of the workflows are loaded before the worker is ready.
        refresh_worker: whether a fresh process is started behind every job.
        memory_bytes: the most memory that the engine's process may allocate; None for no limit of ours.
        hang_s: a process that gives no sign of life for that long is replaced.
        limits: what a job may ask for.
        urls: where URLs in jobs may lead; None if jobs may have none.
        webhooks: where webhooks may lead; None if jobs may have none.
        delivery: how outputs leave.
        comfy_org_api_key: for ComfyUI's paid nodes, where a job brings none; secret.
        log_level: what is logged.

        host, port: where the local API listens; port 0 for any.
        endpoint: the endpoint id that it calls itself; it answers to every other, too.
        token: what callers must show; None for nothing; secret.
        allow_remote: whether it may listen beyond loopback without a token.
        allow_hosts: names under which it may be asked, besides its own.
        state: where jobs are kept; None for the default.
        queue: jobs that may wait.
        keep_s, keep_sync_s: how long a result is kept, of ``run`` and of ``runsync``.
        keep_bytes: what all results may take; the oldest go first.
        ttl_s: how long a job may live, waiting and running, unless it says otherwise.
        grace_s: what the job that runs is given to end when the worker is to end: a little less than what ``docker stop``
            waits before it kills.
        run_bytes, runsync_bytes: the largest body of a job.
        worker_id: what this worker calls itself in answers.
    """

    backend: BackendName = "engine"
    models: Path = field(default_factory=lambda: default_models_dir({}))
    workflows: Path | None = None
    comfyui: Path | None = None
    warm_up: bool = True
    refresh_worker: bool = False
    memory_bytes: int | None = None
    hang_s: float = 120.0
    limits: JobLimits = field(default_factory=JobLimits)
    urls: UrlPolicy | None = None
    webhooks: UrlPolicy | None = None
    delivery: DeliveryPolicy = field(default_factory=DeliveryPolicy)
    comfy_org_api_key: str | None = field(default=None, repr=False)
    log_level: LogLevel = "INFO"

    host: str = "127.0.0.1"
    port: int = 8000
    endpoint: str = "local"
    token: str | None = field(default=None, repr=False)
    allow_remote: bool = False
    allow_hosts: tuple[str, ...] = ()
    state: Path | None = None
    queue: int = 50
    keep_s: float = 1800.0
    keep_sync_s: float = 60.0
    keep_bytes: int = 2000 * MEGABYTE
    ttl_s: float = 86400.0
    grace_s: float = 8.0
    run_bytes: int = 10 * MEGABYTE
    runsync_bytes: int = 20 * MEGABYTE
    worker_id: str = "local"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], **options: Any) -> WorkerSettings:
        """Read the environment. `options` are attributes that the command line gave; None stands for not given.

        Raises:
            UsageError: a variable makes no sense; the message names it.
        """
        env = Environment(environ)
        # As the reference's image: its container is what decides who can reach it.
        in_container = env.flag("SERVE_API_LOCALLY", False)
        urls = _url_policy(env, "COMFY_CPU_URLS")
        settings = cls(
            backend=cast(BackendName, env.choice("COMFY_CPU_BACKEND", get_args(BackendName), cls.backend)),
            models=default_models_dir(environ).expanduser(),
            workflows=env.path("COMFY_CPU_WORKFLOWS"),
            comfyui=env.path("COMFYUI_PATH"),
            warm_up=env.flag("COMFY_CPU_WARM_UP", cls.warm_up),
            refresh_worker=env.flag("REFRESH_WORKER", cls.refresh_worker),
            memory_bytes=env.integer("COMFY_CPU_MEMORY", 0, least=0, most=10**15) or None,
            hang_s=env.seconds("COMFY_CPU_HANG", cls.hang_s, least=5),
            limits=_job_limits(env, urls=urls is not None),
            urls=urls,
            webhooks=_url_policy(env, "COMFY_CPU_WEBHOOKS"),
            delivery=_delivery(env, environ),
            comfy_org_api_key=env.text("COMFY_ORG_API_KEY"),
            log_level=cast(LogLevel, env.choice("COMFY_LOG_LEVEL", get_args(LogLevel), cls.log_level)),
            host=env.text("COMFY_CPU_HOST") or ("0.0.0.0" if in_container else cls.host),  # noqa: S104
            port=env.integer("COMFY_CPU_PORT", cls.port, least=0, most=65535),
            endpoint=env.text("COMFY_CPU_ENDPOINT") or env.text("RUNPOD_ENDPOINT_ID") or cls.endpoint,
            token=env.text("COMFY_CPU_TOKEN"),
            allow_remote=env.flag("COMFY_CPU_ALLOW_REMOTE", in_container),
            allow_hosts=env.names("COMFY_CPU_ALLOW_HOSTS"),
            state=env.path("COMFY_CPU_STATE"),
            queue=env.integer("COMFY_CPU_QUEUE", cls.queue, least=1, most=1_000_000),
            keep_s=env.seconds("COMFY_CPU_KEEP", cls.keep_s, least=1),
            keep_sync_s=env.seconds("COMFY_CPU_KEEP_SYNC", cls.keep_sync_s, least=1),
            keep_bytes=env.integer("COMFY_CPU_KEEP_BYTES", cls.keep_bytes, least=0, most=10**15),
            ttl_s=env.seconds("COMFY_CPU_TTL", cls.ttl_s, least=1),
            grace_s=env.seconds("COMFY_CPU_GRACE", cls.grace_s),
            run_bytes=env.integer("COMFY_CPU_RUN_BYTES", cls.run_bytes, least=1000, most=10**9),
            runsync_bytes=env.integer("COMFY_CPU_RUNSYNC_BYTES", cls.runsync_bytes, least=1000, most=10**9),
            worker_id=env.text("RUNPOD_POD_ID") or socket.gethostname() or cls.worker_id,
        )
        return dataclasses.replace(settings, **{name: value for name, value in options.items() if value is not None})


def _job_limits(env: Environment, *, urls: bool) -> JobLimits:
    default = JobLimits()
    longest = env.seconds("COMFY_CPU_MAX_TIMEOUT", default.max_timeout_s, least=1)
    timeout = env.seconds("COMFY_CPU_TIMEOUT", min(default.timeout_s, longest), least=0.1)
    if timeout > longest:
        raise UsageError(
            f"COMFY_CPU_TIMEOUT is {timeout:g}, more than COMFY_CPU_MAX_TIMEOUT, which is {longest:g}",
            remedy="set COMFY_CPU_MAX_TIMEOUT to the most seconds that a job may take",
        )
    return dataclasses.replace(default, urls=urls, timeout_s=timeout, max_timeout_s=longest)


def _url_policy(env: Environment, switch: str, *, default: bool = False) -> UrlPolicy | None:
    if not env.flag(switch, default):
        return None
    return UrlPolicy(
        allow_hosts=env.names("COMFY_CPU_URL_HOSTS"),
        deny_hosts=env.names("COMFY_CPU_URL_DENY_HOSTS"),
        allow_private=env.flag("COMFY_CPU_URL_PRIVATE", False),
        ca_file=env.path("COMFY_CPU_URL_CA_FILE"),
    )


def _delivery(env: Environment, environ: Mapping[str, str]) -> DeliveryPolicy:
    default = DeliveryPolicy()
    reencode = env.choice("COMFY_CPU_REENCODE", ("none", "webp", "jpeg"), "none")
    return DeliveryPolicy(
        output_bytes=env.integer("COMFY_CPU_OUTPUT_BYTES", default.output_bytes, least=1000, most=10**9),
        s3=s3_from_environ(environ),
        job_buckets=_url_policy(env, "COMFY_CPU_JOB_BUCKETS", default=True),
        reencode=None if reencode == "none" else cast(Literal["webp", "jpeg"], reencode),
        quality=env.integer("COMFY_CPU_QUALITY", default.quality, least=1, most=100),
    )
