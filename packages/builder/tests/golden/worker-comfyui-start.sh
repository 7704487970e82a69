#!/bin/bash
# Starts ComfyUI for CPUs in the background, and the handler. Made by comfy-cpu-builder; changes belong into the spec or
# into a plugin.
set -eu

# Threads: what this container may use, read now. Hosts differ, and a quota may be smaller than the host.
if ! threads="$(/opt/venv/bin/python3 -m comfy_cpu_core.resources --shell)"; then
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

if command -v comfy-manager-set-mode >/dev/null 2>&1; then
  comfy-manager-set-mode offline || echo "start.sh: ComfyUI-Manager could not be set to offline" >&2
fi

# All that ComfyUI writes, where the root file system is read-only.
scratch="${COMFYUI_SCRATCH:-/tmp/comfyui}"
mkdir -p "$scratch/input" "$scratch/output" "$scratch/temp" "$scratch/user"

comfyui=(/opt/venv/bin/python3 -u /comfyui/main.py --cpu --disable-auto-launch --disable-metadata
  --verbose "${COMFY_LOG_LEVEL:-DEBUG}" --log-stdout
  --input-directory "$scratch/input" --output-directory "$scratch/output" --temp-directory "$scratch"
  --user-directory "$scratch/user")
handler=(/opt/venv/bin/python3 -u /handler.py)
if [ "${SERVE_API_LOCALLY:-false}" = "true" ]; then
  comfyui+=(--listen)
  handler+=(--rp_serve_api --rp_api_host=0.0.0.0)
fi

"${comfyui[@]}" &
comfyui_pid=$!
"${handler[@]}" &
handler_pid=$!

# Both get the signal; the container ends when they have ended.
stopping=""
# shellcheck disable=SC2317 # the trap calls it
stop() {
  stopping=1
  kill -TERM "$handler_pid" "$comfyui_pid" 2>/dev/null || true
}
trap stop TERM INT

alive() { kill -0 "$1" 2>/dev/null; }

# A trapped signal ends a wait early: look again until one of them has really ended.
while alive "$handler_pid" && alive "$comfyui_pid"; do
  wait -n "$handler_pid" "$comfyui_pid" || true
done

code=0
if [ -z "$stopping" ] && alive "$handler_pid"; then
  # Without ComfyUI every job would fail: a new container is better than this one.
  wait "$comfyui_pid" || code=$?
  echo "start.sh: ComfyUI ended with exit code $code" >&2
  [ "$code" -ne 0 ] || code=1
  kill -TERM "$handler_pid" 2>/dev/null || true
  wait "$handler_pid" || true
  exit "$code"
fi
while alive "$handler_pid"; do
  wait "$handler_pid" || true
done
wait "$handler_pid" || code=$?
kill -TERM "$comfyui_pid" 2>/dev/null || true
wait "$comfyui_pid" || true
exit "$code"
