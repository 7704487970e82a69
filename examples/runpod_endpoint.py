"""Run a workflow with a picture on a RunPod endpoint: python runpod_endpoint.py ENDPOINT_ID workflow.json photo.jpg

The key is in RUNPOD_API_KEY. A `comfy-cpu serve` of your own takes the same: Client("http://127.0.0.1:8000").
"""

import sys

from comfy_cpu_client import Client

endpoint, workflow, picture = sys.argv[1:]
with Client(f"runpod://{endpoint}") as client:
    result = client.run(workflow, inputs=picture)
for image in result.images:
    print(image.save(image.filename))
if not result.ok:
    sys.exit(result.errors[0].message)
