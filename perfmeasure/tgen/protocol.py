"""TGen's wire protocol 2.0: the lines that two generators exchange around the payload.

The commander (the client) sends a command line, and where it says so the GraphML text of a Markov
model; the other side answers with one line. Then each side sends its payload, a line with the
payload's MD5 when the size was given, and last the line ``FIN``. Any first line begins with a
token, checked byte by byte, so that other clients are told apart at once. Sizes are the
commander's. Times, states and errors are the stream's matter (`perfmeasure.tgen.stream`).
"""

from __future__ import annotations

import dataclasses
import re

TOKEN = b"T8nNx9L95LATtckJkR5n"
"""How each side begins, followed by a space."""
VERSION = (2, 0)
FOOTER = b"FIN\n"
MAX_LINE_BYTES = 16 * 1024
"""A longer line is no line of this protocol."""
MAX_MODEL_BYTES = 10 * 1024 * 1024

_COMMAND_TAGS = frozenset({
    "PROTOCOL_VERSION", "HOSTNAME", "TRANSFER_ID", "SEND_SIZE", "RECV_SIZE", "MODEL_NAME",
    "MODEL_SEED", "MODEL_MODE",
})  # fmt: skip
_RESPONSE_TAGS = frozenset({"PROTOCOL_VERSION", "HOSTNAME", "CODE"})
_SIZE = re.compile(r"\d{1,19}\Z", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:+@-]")


class HeaderError(Exception):
    """A header line that cannot be used; ``code`` is TGen's name of the error."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


@dataclasses.dataclass(frozen=True)
class Command:
    """What the commander asks for. Sizes are its own: None lasts until the model ends.

    Either `model_path` is set (mode path) or `model_size` (mode graphml; the text follows).
    """

    hostname: str
    transfer_id: str
    send_size_bytes: int | None
    recv_size_bytes: int | None
    model_name: str
    model_seed: int
    model_path: str | None = None
    model_size: int = 0

    def line(self) -> bytes:
        """Return the line with its newline."""
        text = (
            f" PROTOCOL_VERSION={VERSION[0]}.{VERSION[1]} HOSTNAME={safe_name(self.hostname)}"
            f" TRANSFER_ID={safe_name(self.transfer_id)}"
            f" SEND_SIZE={_size_text(self.send_size_bytes)}"
            f" RECV_SIZE={_size_text(self.recv_size_bytes)}"
            f" MODEL_NAME={safe_name(self.model_name)} MODEL_SEED={self.model_seed}"
        )
        if self.model_path is None:
            text += f" MODEL_MODE=graphml MODEL_SIZE={self.model_size}\n"
        else:
            text += f" MODEL_MODE=path MODEL_PATH={self.model_path}\n"
        return TOKEN + text.encode()


def safe_name(name: str) -> str:
    """Return a name that leaves a header's and a log line's fields whole."""
    return _UNSAFE.sub("_", name[:255])


def parse_command(line: bytes) -> Command:
    """Return the command in ``line``, the bytes between the token's space and the newline.

    Raises:
        HeaderError: HEADER_VERSION, HEADER_INCOMPLETE, HEADER_MODELMODE, HEADER_MODELPATH,
            HEADER_MODELSIZE, or HEADER for a value that is no number.
    """
    tags = _tags(line)
    _check_version(tags)
    mode = tags.get("MODEL_MODE", "").lower()
    if "MODEL_MODE" in tags and mode not in ("path", "graphml"):
        raise HeaderError("HEADER_MODELMODE", f"mode {mode!r}")
    size_text = tags.get("MODEL_SIZE", "")
    if size_text and (not _SIZE.match(size_text) or not 0 < int(size_text) <= MAX_MODEL_BYTES):
        raise HeaderError("HEADER_MODELSIZE", f"a model of {size_text[:20]!r} bytes")
    wanted = _COMMAND_TAGS | {"MODEL_PATH" if mode == "path" else "MODEL_SIZE"}
    _check_complete(tags, wanted)
    return Command(
        hostname=safe_name(tags["HOSTNAME"]),
        transfer_id=safe_name(tags["TRANSFER_ID"]),
        send_size_bytes=_size(tags["SEND_SIZE"]),
        recv_size_bytes=_size(tags["RECV_SIZE"]),
        model_name=safe_name(tags["MODEL_NAME"]),
        model_seed=_seed(tags["MODEL_SEED"]),
        model_path=tags["MODEL_PATH"] if mode == "path" else None,
        model_size=0 if mode == "path" else int(size_text),
    )


def response_line(hostname: str, code: str) -> bytes:
    """Return the answer to a command, with its newline; ``code`` is NONE or an error's name."""
    version = f"{VERSION[0]}.{VERSION[1]}"
    text = f" PROTOCOL_VERSION={version} HOSTNAME={safe_name(hostname)} CODE={code}\n"
    return TOKEN + text.encode()


def parse_response(line: bytes) -> str:
    """Return the host name in an answer, the bytes between the token's space and the newline.

    Raises:
        HeaderError: HEADER_VERSION, HEADER_INCOMPLETE, or HEADER when the code is not NONE.
    """
    tags = _tags(line)
    if tags.get("CODE", "NONE").upper() != "NONE":
        raise HeaderError("HEADER", f"the peer answered {safe_name(tags['CODE'])}")
    _check_version(tags)
    _check_complete(tags, _RESPONSE_TAGS)
    return safe_name(tags["HOSTNAME"])


def checksum_line(digest: str) -> bytes:
    """Return the line that follows a payload of a given size."""
    return f"MD5 {digest}\n".encode()


def _tags(line: bytes) -> dict[str, str]:
    pairs = (part.partition("=") for part in line.decode("utf-8", "replace").split(" "))
    # Unknown tags are kept and ignored; what is no pair is ignored too, as TGen does.
    return {key.upper(): value for key, is_pair, value in pairs if is_pair}


def _check_version(tags: dict[str, str]) -> None:
    version = tags.get("PROTOCOL_VERSION")
    if version is not None and version.partition(".")[0] != str(VERSION[0]):
        raise HeaderError("HEADER_VERSION", f"version {version[:20]!r}")


def _check_complete(tags: dict[str, str], wanted: frozenset[str]) -> None:
    missing = sorted(wanted - {tag for tag, value in tags.items() if value})
    if missing:
        raise HeaderError("HEADER_INCOMPLETE", f"without {', '.join(missing)}")


def _size_text(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "0"
    return str(size_bytes) if size_bytes else "~"


def _size(text: str) -> int | None:
    if text.startswith("~"):
        return 0
    if not _SIZE.match(text):
        raise HeaderError("HEADER", f"a size of {text[:20]!r}")
    return int(text) or None


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII):
        raise HeaderError("HEADER", f"a seed of {text[:20]!r}")
    return int(text)
