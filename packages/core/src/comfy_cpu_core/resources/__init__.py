"""What this process may use of the machine: CPUs, memory, instruction sets.

``os.cpu_count()`` sees the host: a container with 4 of a host's 64 CPUs would start 64 threads that fight for 4. Here
the answer comes from the affinity mask and from every cgroup, version 1 or 2, that the process is in. Importing this
package reads nothing; `detect` reads now.
"""

from comfy_cpu_core.resources.cgroups import read_oom_kills
from comfy_cpu_core.resources.detect import (
    THREADS_VARIABLE,
    Resources,
    detect,
    get_resources,
    thread_environment,
)

__all__ = ["THREADS_VARIABLE", "Resources", "detect", "get_resources", "read_oom_kills", "thread_environment"]
