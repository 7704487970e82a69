"""The client's targets with a queue of jobs: RunPod's endpoints, and our worker, which answers as they do.

`protocol`, `run`, `document` and their kin say what is asked and what answers mean, and open nothing; `transport` alone
talks to the network; `target` and `job` bring the two together.
"""

from comfy_cpu_client.runpod.address import SCHEMES
from comfy_cpu_client.runpod.settings import QueueSettings
from comfy_cpu_client.runpod.target import QueueTarget, open_queue

__all__ = ["SCHEMES", "QueueSettings", "QueueTarget", "open_queue"]
