"""Stands in for ComfyUI's main.py in a test image: says how it was started, and which classes it has."""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLASSES = os.environ.get("STAND_IN_CLASSES", "").split(",")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({key: {} for key in CLASSES}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def end(number, frame):
    sys.stdout.write(f"comfyui: signal {number}\n")
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
# One write for each line: the handler prints into the same log.
say = sys.stdout.write
say(f"comfyui: {json.dumps(sys.argv[1:])} preload: {os.environ.get('LD_PRELOAD', '')}\n")
say(f"comfyui threads: {os.environ.get('OMP_NUM_THREADS')}\n")
if "COMFYUI_DIES" in os.environ:
    time.sleep(0.5)
    sys.exit(int(os.environ["COMFYUI_DIES"]))
ThreadingHTTPServer(("127.0.0.1", 8188), Handler).serve_forever()
