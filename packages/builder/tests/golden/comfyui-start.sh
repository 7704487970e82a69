#!/bin/sh
# Starts the worker, which starts and watches ComfyUI: behind RunPod's queue where RunPod started this container, else
# with the local API. Made by comfy-cpu-builder; changes belong into the spec or into a plugin.
set -eu

# Threads: what this container may use, read now. Hosts differ, and a quota may be smaller than the host.
if ! threads="$(/opt/comfy-cpu/venv/bin/python3 -m comfy_cpu_core.resources --shell)"; then
  echo "start.sh: the number of threads cannot be worked out" >&2
  exit 1
fi
eval "$threads"

# An allocator that gives memory back sooner, where the image has it.
tcmalloc="$(ldconfig -p 2>/dev/null | awk '/libtcmalloc(_minimal)?\.so\.[0-9]+ / { print $NF; exit }' || true)"
if [ -n "$tcmalloc" ] && [ -z "${LD_PRELOAD:-}" ]; then
  export LD_PRELOAD="$tcmalloc"
fi

# What the container's user has set goes before.
if [ -z "${SMALL_MODE+set}" ]; then
  export SMALL_MODE='it'"'"'s $(reboot)'
fi

export COMFY_CPU_BACKEND=comfyui COMFYUI_PATH=/comfyui
if [ -n "${RUNPOD_WEBHOOK_GET_JOB:-}" ] && [ "${SERVE_API_LOCALLY:-false}" != "true" ]; then
  exec python3 -u -m comfy_cpu_worker.runpod
fi
# Elsewhere whoever publishes the container's port decides who reaches it; COMFY_CPU_TOKEN asks callers for a token.
export SERVE_API_LOCALLY="${SERVE_API_LOCALLY:-true}"
# exec: signals reach the worker, and its exit code is the container's.
exec comfy-cpu serve
