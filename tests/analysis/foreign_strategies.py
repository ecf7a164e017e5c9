"""Databases of OnionPerf as hypothesis draws them: what each version may hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

DAY = 1795305600
seconds = st.integers(0, 3_000_000).map(lambda us: us / 1e6)
stamps = st.integers(0, 3 * 86400 * 100).map(lambda hundredths: DAY + hundredths / 100)
ports = st.integers(1024, 65535)
fingerprints = st.sampled_from([letter * 40 for letter in "ABCDEF0123"])
hops = fingerprints.map(lambda fingerprint: f"${fingerprint}~relay")
reasons = st.sampled_from(["END", "DESTROY", "TIMEOUT", "MISC"])
deciles = st.dictionaries(st.sampled_from(["0.0", "0.1", "0.5", "0.8", "1.0"]), seconds)
marks = st.dictionaries(st.sampled_from(["10240", "51200", "5242880"]), seconds)


def optional(draw: Any, record: dict[str, Any], **fields: Any) -> None:
    """Set each field, or leave it out."""
    for name, strategy in fields.items():
        if draw(st.booleans()):
            record[name] = draw(strategy)


@st.composite
def guards(draw: Any) -> dict[str, Any]:
    guard = {"fingerprint": draw(fingerprints), "nickname": "relay"}
    optional(draw, guard, country=st.just("de"), up_ts=stamps, new_ts=stamps, dropped_ts=stamps)
    return guard


@st.composite
def circuits(draw: Any, number: int, version: str) -> dict[str, Any]:
    start, lived = draw(stamps), draw(seconds)
    events: list[Any] = [["GENERAL:LAUNCHED", 0.0]]
    record: dict[str, Any] = {"circuit_id": number, "unix_ts_start": start}
    if draw(st.booleans()):
        path = draw(st.lists(hops, min_size=1, max_size=4))
        record["path"] = [[hop, lived / 4] for hop in path]
        events += [["GENERAL:EXTENDED", lived / 4] for _ in path]
        optional(draw, record, buildtime_seconds=seconds)
    optional(
        draw, record, failure_reason_local=reasons, failure_reason_remote=reasons,
        build_timeout=st.integers(0, 60000), build_quantile=st.sampled_from([0.8, 1.0]),
    )  # fmt: skip
    events.append(["GENERAL:CLOSED", lived])
    record.update(elapsed_seconds=events, unix_ts_end=start + lived)
    if version in {"3.1", "4.0"}:
        record["filtered_out"] = draw(st.booleans())
    if version == "3.1":
        optional(
            draw, record, cbt_set=st.booleans(),
            current_guards=st.lists(guards(), min_size=1, max_size=2),
        )  # fmt: skip
    return record


@st.composite
def tor_streams(draw: Any, number: int) -> dict[str, Any]:
    start, lived = draw(stamps), draw(seconds)
    record: dict[str, Any] = {
        "circuit_id": draw(st.none() | st.integers(1, 5).map(str)),
        "elapsed_seconds": [["USER:NEW", 0.0], ["USER:SENTCONNECT", lived], ["USER:CLOSED", lived]],
        "stream_id": number,
        "target": draw(st.sampled_from(["192.0.2.1:80", "abc.onion:80"])),
        "unix_ts_end": start + lived,
        "unix_ts_start": start,
    }
    optional(
        draw, record, failure_reason_local=reasons, failure_reason_remote=reasons,
        source=ports.map("127.0.0.1:{}".format),
    )  # fmt: skip
    return record


@st.composite
def transfers(draw: Any, name: str) -> dict[str, Any]:
    start, is_error = draw(stamps), draw(st.booleans())
    elapsed: dict[str, Any] = {}
    steps = ("socket_create", "socket_connect", "proxy_choice", "command", "first_byte")
    optional(draw, elapsed, **dict.fromkeys((*steps, "last_byte"), seconds))
    optional(draw, elapsed, payload_progress=deciles, payload_bytes=marks)
    return {
        "elapsed_seconds": elapsed,
        "endpoint_local": f"localhost:127.0.0.1:{draw(ports)}",
        "endpoint_proxy": "localhost:127.0.0.1:9050",
        "endpoint_remote": draw(st.sampled_from(["abc.onion:0.0.0.0:80", "server:192.0.2.1:80"])),
        "error_code": draw(st.sampled_from(["PROXY", "READ"])) if is_error else "NONE",
        "filesize_bytes": draw(st.sampled_from([51200, 1048576, 5242880])),
        "hostname_local": "vm",
        "hostname_remote": "(null)",
        "is_commander": True,
        "is_complete": True,
        "is_error": is_error,
        "is_success": not is_error,
        "method": draw(st.sampled_from(["GET", "PUT"])),
        "payload_bytes_status": draw(st.integers(0, 10**9)),
        "total_bytes_read": draw(st.integers(0, 10**9)),
        "total_bytes_write": draw(st.integers(0, 10**9)),
        "transfer_id": name,
        "unix_ts_end": start + draw(seconds),
        "unix_ts_start": start,
    }


@st.composite
def tgen_streams(draw: Any) -> dict[str, Any]:
    start, lived_us, is_error = draw(stamps), draw(st.integers(0, 10**7)), draw(st.booleans())
    steps = (
        "socket-create socket-connect proxy-init proxy-choice proxy-request proxy-response command "
        "response first-byte-recv last-byte-recv checksum-recv first-byte-send last-byte-send "
        "checksum-send"
    )
    end = start + lived_us / 1e6
    transport = {
        "error": "NONE", "fd": str(draw(st.integers(5, 7))), "proxy": "localhost:127.0.0.1:9050",
        "local": f"localhost:127.0.0.1:{draw(ports)}", "remote": "abc.onion:0.0.0.0:80",
        "state": "SUCCESS_OPEN",
    }  # fmt: skip
    stream = {
        "error": "PROXY" if is_error else "NONE", "id": str(draw(st.integers(0, 3))), "name": "vm",
        "peername": "vm", "recvstate": "RECV_SUCCESS", "sendstate": "SEND_SUCCESS",
        "recvsize": draw(st.sampled_from(["0", "5242880"])),
        "sendsize": draw(st.sampled_from(["0", "1000000"])),
        "vertexid": draw(st.sampled_from(["stream", "stream5m", "passive-stream:stream"])),
    }  # fmt: skip
    sizes = ("payload-bytes-recv", "payload-bytes-send", "total-bytes-recv", "total-bytes-send")
    record: dict[str, Any] = {
        "byte_info": {
            **{size: str(draw(st.integers(0, 10**7))) for size in sizes},
            "payload-progress-recv": "?",
            "payload-progress-send": "100.00%",
        },
        "is_complete": True,
        "is_error": is_error,
        "is_success": not is_error,
        "stream_info": stream,
        "time_info": {
            "created-ts": "1000",
            "now-ts": str(1000 + lived_us),
            **{f"usecs-to-{s}": str(draw(st.integers(-1, 10**7))) for s in steps.split()},
        },
        "transport_info": transport,
        "unix_ts_end": end,
        "unix_ts_start": end - lived_us / 1e6,
    }
    if not is_error:
        elapsed: dict[str, Any] = {}
        optional(
            draw, elapsed, payload_bytes_recv=marks, payload_bytes_send=marks,
            payload_progress_recv=deciles, payload_progress_send=deciles,
        )  # fmt: skip
        if elapsed:
            record["elapsed_seconds"] = elapsed
    return record


@st.composite
def nodes(draw: Any, version: str) -> dict[str, Any]:
    tor: dict[str, Any] = {
        "circuits": {str(n): draw(circuits(n, version)) for n in range(1, draw(st.integers(1, 4)))},
        "streams": {str(n): draw(tor_streams(n)) for n in range(1, draw(st.integers(1, 4)))},
    }
    tgen: dict[str, Any]
    if version < "3":
        names = [f"transfer5m:{n}" for n in range(draw(st.integers(0, 3)))]
        tgen = {
            "transfers": {name: draw(transfers(name)) for name in names},
            "transfers_summary": {
                "time_to_first_byte": {"51200": {"1795305700": [0.5, 0.25]}},
                "time_to_last_byte": {},
                "errors": {"PROXY": {"1795305700": [51200]}},
            },
        }
        per_second = st.dictionaries(stamps.map(lambda ts: str(int(ts))), st.integers(0, 10**9))
        tor["bandwidth_summary"] = {
            "bytes_read": draw(per_second), "bytes_written": draw(per_second),
        }  # fmt: skip
        tor["circuits_summary"] = {"buildtimes": [1.25], "lifetimes": draw(st.lists(seconds))}
        tor["streams_summary"] = {"lifetimes": {"USER": draw(st.lists(seconds))}}
    else:
        if version == "3.1":
            optional(draw, tor, guards=st.lists(guards(), max_size=3))
        streams: dict[str, Any] = {}
        for stream in draw(st.lists(tgen_streams(), max_size=4)):
            transport = stream["transport_info"]
            parts = (stream["stream_info"]["id"], transport["fd"], transport["local"])
            name = ":".join((*parts, transport["remote"]))
            streams[name] = {**stream, "stream_id": name}
        tgen = {"streams": streams}
    return {"measurement_ip": "192.0.2.7", "tgen": tgen, "tor": tor}


@st.composite
def databases(draw: Any, version: str) -> dict[str, Any]:
    """Draw a database that follows the version's schema."""
    document: dict[str, Any] = {
        "type": "onionperf",
        "version": 1.0 if version == "1.0" else version,
        "data": draw(st.dictionaries(st.sampled_from(["op-nl", "op-us"]), nodes(version))),
    }
    if version in {"3.1", "4.0"} and draw(st.booleans()):
        document["filters"] = {"tor/circuits": [{"name": "exclude", "filepath": "relays.txt"}]}
    return document
