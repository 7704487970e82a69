"""Whether the worker takes jobs. Behind RunPod's queue there is nothing to ask: RunPod looks after its workers itself."""

import os
import sys
import urllib.request

if os.environ.get("RUNPOD_WEBHOOK_GET_JOB") and os.environ.get("SERVE_API_LOCALLY", "").lower() != "true":
    sys.exit(0)
url = f"http://127.0.0.1:{os.environ.get('COMFY_CPU_PORT', '8000')}/ready"
try:
    # No proxy: the worker is in this container.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except OSError as error:
    sys.stdout.write(f"{url}: {error}\n")
    sys.exit(1)
