"""Stands in for the handler of RunPod's worker in a test image: its local server answers every job with one picture."""

import base64
import io
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def end(number, frame):
    sys.stdout.write(f"handler: signal {number}\n")
    sys.exit(int(os.environ.get("HANDLER_EXIT", "0")))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(404, {"error": "not found"})

    def do_POST(self):
        from PIL import Image

        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        picture = io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(job["images"][0]["image"]))).convert("RGBA").save(picture, "PNG")
        data = base64.b64encode(picture.getvalue()).decode()
        images = [{"filename": "cutout.png", "type": "base64", "data": data}]
        self.answer(200, {"id": "x", "status": "COMPLETED", "output": {"images": images}})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, end)
sys.stdout.write(f"handler: {json.dumps(sys.argv[1:])}\n")
if "HANDLER_DIES" in os.environ:
    time.sleep(0.5)
    sys.exit(int(os.environ["HANDLER_DIES"]))
if "--rp_serve_api" in sys.argv:
    ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
while True:
    time.sleep(60)
