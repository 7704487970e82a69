from __future__ import annotations

import requests
from websockets.exceptions import ConnectionClosedError

from comfy_cpu_client.sessions import failure_reason, may_be_sent


def test_a_reason_without_the_words_of_libraries() -> None:
    error = requests.ConnectionError("http://mona:hunter2@proxy is away")
    assert failure_reason(error) == "ConnectionError"
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert failure_reason(error) == "Connection refused"
    assert failure_reason(requests.ReadTimeout(TimeoutError())) == "it went silent"


def test_a_websocket_that_broke_off_during_its_handshake() -> None:
    error = ConnectionClosedError(None, None)
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert failure_reason(error) == "Connection reset by peer"
    assert may_be_sent(error)
