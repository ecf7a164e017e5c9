"""The client's side of SOCKS5 (RFC 1928, RFC 1929), as steps without a socket.

States and error names are those of TGen's log. Names go to the proxy as names, so that nothing is
looked up outside of it. The address in the proxy's answer is its own, and is read and ignored, as
the RFC has it (TGen knows no IPv6 there and takes another address than 0.0.0.0 for an error).
"""

from __future__ import annotations

import ipaddress

from perfmeasure.tgen.peer import Peer

REPLIES = {
    1: "general failure",
    2: "connection not allowed by ruleset",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused by destination host",
    6: "TTL expired",
    7: "command not supported / protocol error",
    8: "address type not supported",
}
"""What a proxy says by its reply code."""

_ADDRESS_BYTES = {1: 4, 4: 16}


class SocksError(Exception):
    """The proxy did not do as asked; ``code`` is TGen's name of the error."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class SocksHandshake:
    """One handshake: send `take_output`, give what comes to `receive`, until `is_done`.

    Args:
        remote: whom the proxy shall connect to.
        username, password: None both: no authentication is offered. Cut at 255 bytes.

    `state` is INIT, CHOICE, AUTH_REQUEST, AUTH_RESPONSE, REQUEST, RESPONSE_STATUS, RESPONSE_TYPE,
    RESPONSE_IPV4, RESPONSE_NAMELEN, RESPONSE_NAME or SUCCESS_OPEN. The states that send end with
    `take_output`; after it the next one waits for the proxy.
    """

    def __init__(self, remote: Peer, username: str | None, password: str | None) -> None:
        self._remote = remote
        self._credentials = (
            None
            if username is None and password is None
            else ((username or "\0").encode()[:255], (password or "\0").encode()[:255])
        )
        self._received = bytearray()
        self._answer_bytes = 0
        self.state = "INIT"

    @property
    def is_done(self) -> bool:
        """Whether the way to the remote is open."""
        return self.state == "SUCCESS_OPEN"

    def take_output(self) -> bytes:
        """Return what has to be sent now, nothing while the proxy has to answer."""
        if self.state == "INIT":
            self._advance("CHOICE", 2)
            return b"\x05\x01\x02" if self._credentials else b"\x05\x01\x00"
        if self.state == "AUTH_REQUEST" and self._credentials:
            self._advance("AUTH_RESPONSE", 2)
            user, password = self._credentials
            return b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password
        if self.state == "REQUEST":
            self._advance("RESPONSE_STATUS", 2)
            return b"\x05\x01\x00" + self._address() + self._remote.port.to_bytes(2, "big")
        return b""

    def wanted(self) -> int:
        """Return how many bytes of the proxy the present state still waits for, at least 1.

        Reading no more leaves what follows the handshake to the stream.
        """
        return max(1, self._answer_bytes - len(self._received))

    def receive(self, data: bytes) -> None:
        """Take what the proxy sent, at most `wanted` bytes.

        Raises:
            SocksError: CHOICE, AUTH, VERSION, STATUS or ADDR.
        """
        self._received += data
        if len(self._received) < self._answer_bytes:
            return
        answer = bytes(self._received)
        self._received.clear()
        if self.state == "CHOICE":
            self._on_choice(answer)
        elif self.state == "AUTH_RESPONSE":
            if answer[1] != 0:
                raise SocksError("AUTH", "the proxy refused the user name and password")
            self._advance("REQUEST", 0)
        elif self.state == "RESPONSE_STATUS":
            self._on_status(answer)
        elif self.state == "RESPONSE_TYPE":
            self._on_type(answer)
        elif self.state == "RESPONSE_NAMELEN":
            self._advance("RESPONSE_NAME", answer[0] + 2)
        else:
            self._advance("SUCCESS_OPEN", 0)

    def _advance(self, state: str, answer_bytes: int) -> None:
        self.state = state
        self._answer_bytes = answer_bytes

    def _on_choice(self, answer: bytes) -> None:
        if answer[0] != 5 or answer[1] != (2 if self._credentials else 0):
            raise SocksError(
                "CHOICE", f"the proxy answered version {answer[0]} and method {answer[1]:#x}"
            )
        self._advance("AUTH_REQUEST" if self._credentials else "REQUEST", 0)

    def _on_status(self, answer: bytes) -> None:
        version, status = answer
        if version != 5:
            raise SocksError(
                "VERSION", f"we support version 5 but the SOCKS server wants version {version:X}"
            )
        if status != 0:
            raise SocksError(
                "STATUS",
                "our request was not granted by the SOCKS server: "
                f"error status {status:X}: {REPLIES.get(status, 'unknown error')}",
            )
        self._advance("RESPONSE_TYPE", 2)

    def _on_type(self, answer: bytes) -> None:
        if answer[1] == 3:
            self._advance("RESPONSE_NAMELEN", 1)
        elif answer[1] in _ADDRESS_BYTES:
            self._advance("RESPONSE_IPV4", _ADDRESS_BYTES[answer[1]] + 2)
        else:
            raise SocksError("ADDR", f"unsupported address type 0x{answer[1]:X}")

    def _address(self) -> bytes:
        if self._remote.is_address:
            return b"\x01" + ipaddress.IPv4Address(self._remote.host).packed
        name = self._remote.host.encode("ascii", "replace")[:255]
        return b"\x03" + bytes([len(name)]) + name
