"""OpenVINO, imported without its telemetry.

``import openvino`` brings its model converter, and with it ``openvino_telemetry``, which writes an id and statistics
below ``~/intel``. Nothing here needs either of them, and a worker's home may be read-only.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

__all__ = ["import_openvino"]

_TELEMETRY = "openvino_telemetry"


@lru_cache(maxsize=1)
def import_openvino() -> Any:
    """The module ``openvino``.

    Raises:
        ImportError: it is not installed, or cannot be imported.
    """
    kept = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # so that importing it fails: OpenVINO has a stub for that
    try:
        import openvino
    finally:
        if kept is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = kept
    return openvino
