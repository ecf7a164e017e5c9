"""Databases that nobody measured: a day of transfers with the fields that figures are made of."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from typing import Any

SIZES = (51200, 1048576, 5242880)
_MEDIAN_SECONDS = {51200: 0.9, 1048576: 2.2, 5242880: 6.0}
_ERRORS = ("TIMEOUT", "PROXY", "READ", "STALLOUT")
_PATH_LENGTH = 3


def day(
    date: str,
    *,
    transfers: int = 120,
    nicknames: Sequence[str] = ("host",),
    errors: Sequence[str] = _ERRORS,
    failing: float = 0.04,
) -> dict[str, Any]:
    """Return a perfmeasure-1.0 document of one UTC day, the same for the same arguments.

    Args:
        date: ``YYYY-MM-DD``.
        transfers: of each nickname, equally far apart; sizes and destinations take turns.
        nicknames: keys of the data.
        errors: codes of the transfers that fail.
        failing: the part that fails.
    """
    begin = dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC).timestamp()
    data = {}
    for nickname in nicknames:
        chance = random.Random(f"{date} {nickname}")
        relays = [f"${chance.getrandbits(160):040X}~relay{number}" for number in range(9)]
        node: dict[str, Any] = {
            "measurement_ip": "127.0.0.1",
            "tgen": {"transfers": {}},
            "tor": {"circuits": {}, "streams": {}, "guards": []},
        }
        drift = 1 + 0.3 * ((begin / 86400 % 90) / 90)
        for number in range(transfers):
            start = begin + 86000 * number / transfers
            circuit = _circuit(chance, number, start, relays)
            node["tor"]["circuits"][str(number)] = circuit
            transfer = _transfer(chance, number, start, drift, errors=errors, failing=failing)
            node["tgen"]["transfers"][transfer["transfer_id"]] = transfer
        data[nickname] = node
    return {"type": "perfmeasure", "version": "1.0", "meta": {"inputs": []}, "data": data}


def _circuit(
    chance: random.Random, number: int, start: float, relays: Sequence[str]
) -> dict[str, Any]:
    seconds = chance.lognormvariate(-0.3, 0.5)
    path = [relays[number % 2], *chance.sample(relays[2:], _PATH_LENGTH - 1)]
    return {
        "circuit_id": number,
        "unix_ts_start": start - 1,
        "unix_ts_end": start + 30,
        "is_complete": True,
        "buildtime_seconds": seconds,
        "elapsed_seconds": [["GENERAL:LAUNCHED", 0.0], ["GENERAL:BUILT", seconds]],
        "path": [[hop, seconds * (at + 1) / _PATH_LENGTH] for at, hop in enumerate(path)],
    }


def _transfer(
    chance: random.Random,
    number: int,
    start: float,
    drift: float,
    *,
    errors: Sequence[str],
    failing: float,
) -> dict[str, Any]:
    size = SIZES[number // 2 % len(SIZES)]
    is_onion = number % 2 == 1
    last = _MEDIAN_SECONDS[size] * drift * (1.6 if is_onion else 1) * chance.lognormvariate(0, 0.45)
    first = min(last * 0.9, chance.lognormvariate(-0.5, 0.4))
    is_error = chance.random() < failing
    steps = {
        "socket_create": 0.0001, "socket_connect": 0.0003, "proxy_init": 0.0004,
        "proxy_choice": 0.0006, "proxy_request": 0.0007, "proxy_response": first * 0.5,
        "command": first * 0.51, "response": first * 0.99, "first_byte": first,
    }  # fmt: skip
    progress = {f"{part / 10}": first + (last - first) * part / 10 for part in range(11)}
    elapsed: dict[str, Any] = {**steps, "last_byte": last, "payload_progress": progress}
    transfer: dict[str, Any] = {
        "transfer_id": f"stream_{'onion' if is_onion else 'exit'}:{number}",
        "unix_ts_start": start,
        "unix_ts_end": start + last,
        "filesize_bytes": size,
        "endpoint_remote": f"{'x.onion' if is_onion else 'server'}:0.0.0.0:80",
        "error_code": "NONE",
        "is_complete": True,
        "is_error": is_error,
        "is_success": not is_error,
        "links": {"status": "linked", "stream": "0", "circuit": str(number)},
        "elapsed_seconds": elapsed,
        "phases": {"connect": 0.0003, "socks": 0.0004, "attach": first * 0.5 - 0.0007,
                   "command": first * 0.01, "response": first * 0.48, "first_byte": first * 0.01,
                   "payload": last - first},
    }  # fmt: skip
    if is_error:
        transfer["error_code"] = chance.choice(list(errors))
        transfer["elapsed_seconds"] = steps
        transfer["phases"] = {"connect": 0.0003, "socks": 0.0004, "attach": first}
    return transfer
