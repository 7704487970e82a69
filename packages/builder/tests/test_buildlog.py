from __future__ import annotations

from comfy_cpu_builder.engines.buildlog import BuildLog

CLASSIC = """\
Sending build context to Docker daemon  2.048kB
Step 1/3 : FROM base
 ---> d37f6e3beec5
Step 2/3 : RUN ["sh", "-c", "echo first; echo second; exit 7"]
 ---> Running in 0123456789ab
first
second
The command 'sh -c echo first; echo second; exit 7' returned a non-zero code: 7
"""

BUILDKIT = """\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#4 [python 1/2] FROM localhost/base
#4 DONE 0.0s

#5 [stage-1 2/4] ADD models/x.tar /
#6 [python 2/2] RUN ["sh", "-c", "echo first; exit 7"]
#6 0.512 first
#6 ERROR: executor failed running [sh -c echo first; exit 7]: exit code: 7
#5 CANCELED
------
 > [python 2/2] RUN ["sh", "-c", "echo first; exit 7"]:
#6 0.512 first
------
executor failed running [sh -c echo first; exit 7]: exit code: 7
"""

BUILDAH = """\
STEP 1/2: FROM localhost/base
STEP 2/2: RUN false
Error: building at STEP "RUN false": while running runtime: exit status 1
"""


def read(text: str) -> tuple[BuildLog, list[tuple[int, int, str]]]:
    log = BuildLog()
    events = [event for line in text.splitlines() if (event := log.feed(line))]
    return log, [(e.number, e.total, e.text) for e in events if e.kind == "step"]


def test_the_classic_builder() -> None:
    log, steps = read(CLASSIC)
    assert [number for number, _, _ in steps] == [1, 2]
    assert log.failed_step.startswith('RUN ["sh", "-c"')
    assert log.last_lines[-1].endswith("returned a non-zero code: 7")
    assert "second" in log.last_lines


def test_buildkit_whose_steps_run_side_by_side() -> None:
    log, steps = read(BUILDKIT)
    assert steps == [
        (1, 2, "FROM localhost/base"),
        (2, 4, "ADD models/x.tar /"),
        (2, 2, 'RUN ["sh", "-c", "echo first; exit 7"]'),
    ]
    assert log.failed_step == 'RUN ["sh", "-c", "echo first; exit 7"]'
    assert log.last_lines[0] == "first"
    assert log.last_lines[1] == "exit code: 7"


def test_buildah() -> None:
    log, steps = read(BUILDAH)
    assert steps[-1] == (2, 2, "RUN false")
    assert log.failed_step == "RUN false"
    assert "exit status 1" in log.last_lines[-1]


def test_a_builder_that_says_nothing_of_steps() -> None:
    log, steps = read("something went wrong\n")
    assert (steps, log.failed_step, log.last_lines) == ([], "", ("something went wrong",))
