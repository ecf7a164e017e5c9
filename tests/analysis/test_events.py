from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.analysis import events
from perfmeasure.analysis.events import RejectedError

STREAM = (
    "28 FAILED 16 voeep6zx.onion:18080 REASON=END REMOTE_REASON=MISC CLIENT_PROTOCOL=SOCKS5 "
    "NYM_EPOCH=0 SESSION_GROUP=-4 ISO_FIELDS=SOCKS_USERNAME,SOCKS_PASSWORD,CLIENTADDR"
)
HOPS = ["$" + "A" * 40 + "~a", "$" + "b" * 40 + "=Named", "$" + "C" * 40]


def test_stream() -> None:
    event = events.stream(STREAM)
    assert (event.number, event.status, event.circuit) == (28, "FAILED", 16)
    assert event.target == "voeep6zx.onion:18080"
    assert event.values["REASON"] == "END"
    assert event.values["REMOTE_REASON"] == "MISC"


def test_names_and_passwords_of_socks_are_left_out() -> None:
    event = events.stream(
        '1 NEW 0 a:1 SOCKS_USERNAME="me SOURCE_ADDR=6.6.6.6:6" SOCKS_PASSWORD="a \\" b" '
        "SOURCE_ADDR=127.0.0.1:5000 PURPOSE=USER"
    )
    assert event.values == {"SOURCE_ADDR": "127.0.0.1:5000", "PURPOSE": "USER"}


def test_a_quote_that_is_not_closed() -> None:
    with pytest.raises(RejectedError, match="quote"):
        events.stream('1 NEW 0 a:1 SOCKS_USERNAME="me SOURCE_ADDR=6.6.6.6:6')


def test_circuit() -> None:
    event = events.circuit(f"7 EXTENDED {','.join(HOPS)} PURPOSE=GENERAL A=b=c", "CIRC")
    assert (event.number, event.status) == (7, "EXTENDED")
    assert event.path == [hop.replace("=", "~") for hop in HOPS]
    assert (event.purpose, event.values["A"]) == ("GENERAL", "b=c")


def test_circuit_without_a_path() -> None:
    event = events.circuit("7 LAUNCHED BUILD_FLAGS=A,B PURPOSE=GENERAL", "CIRC")
    assert event.path == []
    assert event.values["BUILD_FLAGS"] == "A,B"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("HS_STATE=HSCR_JOINED REND_QUERY=abc", "HSCR_JOINED:abc"),
        ("HS_STATE=HSCR_CONNECTING", "HSCR_CONNECTING"),
        ("PURPOSE=GENERAL", "UNKNOWN"),
    ],
)
def test_state_of_a_circuit_of_an_onion_service(text: str, state: str) -> None:
    event = events.circuit(f"16 PURPOSE_CHANGED {text}", "CIRC_MINOR")
    assert event.hidden_service_state == state


def test_the_rest() -> None:
    fingerprint = "a" * 40
    assert events.guard(f"ENTRY ${fingerprint}~exit2 NEW") == (
        "ENTRY",
        fingerprint.upper(),
        "exit2",
        "NEW",
    )
    assert events.connection("$AB~x CONNECTED ID=15") == ("15", "$AB~x", "CONNECTED")
    assert events.connection("1.2.3.4:9001 LAUNCHED") == (
        "1.2.3.4:9001",
        "1.2.3.4:9001",
        "LAUNCHED",
    )
    assert events.bandwidth("461 244 EXTRA=1") == (461, 244)
    assert events.build_timeout(
        "COMPUTED TOTAL_TIMES=205 TIMEOUT_MS=1500 XM=225 ALPHA=2.06 CUTOFF_QUANTILE=0.800000"
    ) == ("COMPUTED", 1500, 0.8)
    assert events.unix_ts("2026-11-22T00:57:46.289288") == 1795309066.289288
    assert events.unix_ts("1970-01-01T00:00:0x") is None


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (events.stream, "16 SUCC 7 127.0.0.1:1"),
        (events.stream, "16 SUCCEEDED x 127.0.0.1:1"),
        (events.stream, "16 SUCCEEDED 7"),
        (lambda text: events.circuit(text, "CIRC"), "16"),
        (lambda text: events.circuit(text, "CIRC"), "16 BUIL"),
        (lambda text: events.circuit(text, "CIRC"), "16 BUILT $AB~x,"),
        (lambda text: events.circuit(text, "CIRC_MINOR"), "16 BUILT"),
        (events.guard, "ENTRY $AB~x NEW"),
        (events.guard, f"ENTRY ${'A' * 40} N"),
        (events.connection, "1.2.3.4:9001 CONNEC"),
        (events.bandwidth, "461"),
        (events.bandwidth, "461 -2"),
        (events.build_timeout, "COMPUTED TIMEOUT_MS=15"),
        (events.build_timeout, "COMPUTED TIMEOUT_MS=15 CUTOFF_QUANTILE=nan"),
        # What Python takes for a number, and no program writes.
        (events.build_timeout, "COMPUTED TIMEOUT_MS=1_5 CUTOFF_QUANTILE=0.8"),
        (events.build_timeout, "COMPUTED TIMEOUT_MS=15 CUTOFF_QUANTILE=8e-1"),
        (events.bandwidth, "+461 244"),
        (events.bandwidth, "4_61 244"),
        (events.bandwidth, "\u0664 244"),
        (events.stream, "16 SUCCEEDED 7_1 127.0.0.1:1"),
        # Keywords that are garbled or there twice, and times that are none.
        (events.stream, "16 SUCCEEDED 7 127.0.0.1:1 PURPOSEUSER"),
        (events.stream, "16 SUCCEEDED 7 127.0.0.1:1 PURP,OSE=USER"),
        (events.stream, "16 SUCCEEDED 7 127.0.0.1:1 PURPOSE=USER PURPOSE=USER"),
        (events.stream, "16 SUCCEEDED 7 127.0.0.1:1 PURPOSE=us"),
        (lambda text: events.circuit(text, "CIRC"), "7 BUILT TIME_CREATED=2026-11-22T00:57"),
        (lambda text: events.circuit(text, "CIRC"), "7 BUILT TIME_CREATED=2026-13-22T00:57:46"),
        (lambda text: events.circuit(text, "CIRC"), "7 BUILT TIME_CREATED=2026-11-22"),
        (events.reader_started, "Starting torctl program on host vm using Tor version 0.4.9.11"),
        (events.reader_started, "Starting torctl program on host vm using Tor vers"),
        (events.reader_gap, "[GAP] control connection back after 0.5"),
    ],
)
def test_what_is_cut_or_garbled_is_rejected(function: object, text: str) -> None:
    assert callable(function)
    with pytest.raises(RejectedError):
        function(text)


@given(st.text(max_size=80), st.integers(0, len(STREAM)))
def test_nothing_else_is_ever_raised(text: str, cut: int) -> None:
    functions = (
        events.stream,
        lambda text: events.circuit(text, "CIRC"),
        lambda text: events.circuit(text, "CIRC_MINOR"),
        events.guard,
        events.connection,
        events.bandwidth,
        events.build_timeout,
    )
    for given_text in (text, STREAM[:cut], STREAM[:cut] + text):
        for function in functions:
            try:
                function(given_text)
            except RejectedError:
                continue
