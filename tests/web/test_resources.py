from __future__ import annotations

import gzip
import hashlib
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from perfmeasure.web import conditions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Serve = Callable[..., Any]

JSON = b'{"data":{}}\n' * 1000
OLD = 784111777


@pytest.fixture
def docroot(tmp_path: Path) -> Path:
    root = tmp_path / "docroot"
    (root / "sub").mkdir(parents=True)
    (root / "latest.json").write_bytes(JSON)
    (root / "latest.json.gz").write_bytes(gzip.compress(JSON, mtime=0))
    (root / "2026-11-21.onionperf.analysis.json.xz").write_bytes(b"xz" * 500)
    (root / "sub" / "a b.txt").write_bytes(b"text")
    (root / ".hidden").write_bytes(b"hidden")
    (root / "empty.log").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "circle").symlink_to("circle")
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (OLD, OLD))
    return root


def test_a_file_comes_as_it_is(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    status, headers, body = served.ask("/latest.json")
    assert (status, body) == (200, JSON)
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == str(len(JSON))
    assert headers["Last-Modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert headers["Vary"] == "Accept-Encoding"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"].startswith('"')
    assert "Content-Encoding" not in headers
    assert "Server" not in headers
    assert "Date" in headers
    assert served.ask("/empty.log")[2] == b""
    assert served.ask("/sub/a%20b.txt?any=query")[2] == b"text"


def test_gzip_is_sent_when_accepted(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    _, plain, _ = served.ask("/latest.json")
    status, headers, body = served.ask("/latest.json", Accept_Encoding="deflate, gzip;q=0.8")
    assert status == 200
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"] == "application/json"
    assert headers["Vary"] == "Accept-Encoding"
    assert headers["Content-Length"] == str(len(body))
    assert headers["ETag"] != plain["ETag"]
    assert "Accept-Ranges" not in headers
    assert gzip.decompress(body) == JSON
    assert body == (docroot / "latest.json.gz").read_bytes()
    _, refused, body = served.ask("/latest.json", Accept_Encoding="gzip;q=0")
    assert "Content-Encoding" not in refused
    assert body == JSON


def test_a_stale_sibling_is_not_sent(serve: Serve, docroot: Path) -> None:
    (docroot / "latest.json").write_bytes(JSON + b"\n")
    _, headers, body = serve(docroot).ask("/latest.json", Accept_Encoding="gzip")
    assert "Content-Encoding" not in headers
    assert body == JSON + b"\n"


def test_a_compressed_file_asked_for_by_name_is_the_file(serve: Serve, docroot: Path) -> None:
    _, headers, body = serve(docroot).ask("/latest.json.gz", Accept_Encoding="gzip")
    assert headers["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in headers
    assert body == (docroot / "latest.json.gz").read_bytes()


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_what_the_client_has_is_not_sent_again(serve: Serve, docroot: Path, accepted: str) -> None:
    served = serve(docroot)
    _, headers, _ = served.ask("/latest.json", Accept_Encoding=accepted)
    tag = headers["ETag"]
    for sent in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        status, again, body = served.ask(
            "/latest.json", Accept_Encoding=accepted, If_None_Match=sent
        )
        assert (status, body) == (304, b"")
        assert again["ETag"] == tag
        assert again["Vary"] == "Accept-Encoding"
        assert "Content-Length" not in again
    other = "gzip" if accepted == "identity" else "identity"
    assert served.ask("/latest.json", Accept_Encoding=other, If_None_Match=tag)[0] == 200
    assert served.ask("/latest.json", If_None_Match='"x"', If_Modified_Since=_date(OLD))[0] == 200
    assert served.ask("/latest.json", If_Modified_Since=_date(OLD))[0] == 304
    assert served.ask("/latest.json", If_Modified_Since=_date(OLD - 1))[0] == 200
    assert served.ask("/latest.json", If_Match='"x"')[0] == 412
    assert served.ask("/latest.json", If_Unmodified_Since=_date(OLD - 1))[0] == 412
    assert served.ask("/latest.json", "HEAD", If_None_Match=tag, Accept_Encoding=accepted)[0] == 304


def _date(unix_ts: float) -> str:
    return conditions.http_date(unix_ts).decode()


def test_a_date_of_the_running_second_is_no_validator(serve: Serve, docroot: Path) -> None:
    now = time.time() + 5
    os.utime(docroot / "latest.json", (now, now))
    served = serve(docroot)
    status, headers, _ = served.ask("/latest.json", If_Modified_Since=_date(now))
    assert status == 200
    assert "Last-Modified" not in headers


def test_ranges(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    size = len(JSON)

    def part(header: str, **more: str) -> tuple[int, str | None, bytes]:
        status, headers, body = served.ask("/latest.json", Range=header, **more)
        assert headers["Content-Length"] == str(len(body))
        return status, headers["Content-Range"], body

    assert part("bytes=0-3") == (206, f"bytes 0-3/{size}", JSON[:4])
    assert part("bytes=-5") == (206, f"bytes {size - 5}-{size - 1}/{size}", JSON[-5:])
    assert part(f"bytes={size - 2}-") == (206, f"bytes {size - 2}-{size - 1}/{size}", JSON[-2:])
    assert part("bytes=0-3", Accept_Encoding="gzip") == (206, f"bytes 0-3/{size}", JSON[:4])
    assert part("bytes=0-1,5-6") == (200, None, JSON)
    assert part("bytes=7-3") == (200, None, JSON)
    assert part("rows=1-2") == (200, None, JSON)
    status, headers, _ = served.ask("/latest.json", Range=f"bytes={size}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    assert served.ask("/empty.log", Range="bytes=0-")[0] == 416
    status, headers, body = served.ask("/latest.json", "HEAD", Range="bytes=0-3")
    assert (status, headers["Content-Length"], body) == (200, str(size), b"")


def test_a_range_of_another_version_is_refused(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    _, headers, _ = served.ask("/latest.json")
    _, packed, _ = served.ask("/latest.json", Accept_Encoding="gzip")

    def status(if_range: str) -> int:
        answer: int = served.ask("/latest.json", Range="bytes=0-3", If_Range=if_range)[0]
        return answer

    assert status(headers["ETag"]) == 206
    assert status(headers["Last-Modified"]) == 206
    assert status(packed["ETag"]) == 200
    assert status("W/" + headers["ETag"]) == 200
    assert status(_date(OLD + 1)) == 200
    # A range on what the client has already is still a range of it.
    sent = {"Range": "bytes=0-3", "If_None_Match": headers["ETag"]}
    assert served.ask("/latest.json", **sent)[0] == 304


@pytest.mark.parametrize("target", ["/latest.json", "/", "/none", "/sub"])
def test_head_is_get_without_the_body(serve: Serve, docroot: Path, target: str) -> None:
    served = serve(docroot)
    status, headers, body = served.ask(target)
    head_status, head_headers, head_body = served.ask(target, "HEAD")
    assert (head_status, head_body) == (status, b"")
    assert body
    without_date = [item for item in headers.items() if item[0] != "Date"]
    assert [item for item in head_headers.items() if item[0] != "Date"] == without_date


def test_methods(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    for method in ("POST", "PUT", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "BREW"):
        status, headers, _ = served.ask("/latest.json", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    for target in ("/latest.json", "*"):
        status, headers, body = served.ask(target, "OPTIONS")
        assert (status, headers["Allow"], body) == (204, "GET, HEAD, OPTIONS", b"")
    assert (docroot / "latest.json").read_bytes() == JSON


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/sub/../../secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "//secret",
        "///etc/passwd",
        "/out",
        "/circle",
        "/.hidden",
        "/%2ehidden",
        "/latest.json/",
        "/latest.json/x",
        "/latest.json%00",
        "/none",
        "/sub/none/",
        "/" + "a" * 300,
        "/" + "a/" * 3000,
        "/%ff%fe",
        "*",
        "latest.json",
    ],
)
def test_paths_that_lead_nowhere(serve: Serve, docroot: Path, target: str) -> None:
    status, _, body = serve(docroot).ask(target)
    assert (status, body) == (404, b"404 Not Found\n")


def test_a_whole_url_as_a_proxys_client_sends_it(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    assert served.ask("http://any.host/sub/a%20b.txt")[2] == b"text"
    assert served.ask("http://any.host")[0] == 200
    assert served.ask("http://any.host/../secret")[0] == 404


def test_lists_of_folders(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    status, headers, body = served.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    links = [line.split('"')[1] for line in body.decode().splitlines() if "<a href=" in line]
    assert links == [
        "2026-11-21.onionperf.analysis.json.xz",
        "empty.log",
        "latest.json",
        "latest.json.gz",
        "sub/",
    ]
    status, headers, _ = served.ask("/sub")
    assert (status, headers["Location"]) == (301, "./sub/")
    assert b'<a href="a%20b.txt">a b.txt</a>' in served.ask("/sub/")[2]
    (docroot / "sub" / "index.html").write_bytes(b"<p>mine")
    status, headers, body = served.ask("/sub/")
    assert (headers["Content-Type"], body) == ("text/html; charset=utf-8", b"<p>mine")
    assert "ETag" in headers


def test_http_1_1_without_a_host_is_refused(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    end = b"Connection: close\r\n\r\n"
    assert served.raw(b"GET / HTTP/1.1\r\n" + end).startswith(b"HTTP/1.1 400 ")
    twice = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + end
    assert served.raw(twice).startswith(b"HTTP/1.1 400 ")
    assert served.raw(b"GET / HTTP/1.0\r\n\r\n").split(b" ")[1] == b"200"


def test_what_cannot_be_read_is_forbidden_and_reported(
    serve: Serve, docroot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perfmeasure.web import files

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "open_file", refuse)
    served = serve(docroot)
    assert served.ask("/latest.json")[0] == 403
    assert served.errors == [f"{docroot}/latest.json: cannot be served (Permission denied)"]


def test_a_disk_that_fails_is_reported(
    serve: Serve, docroot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perfmeasure.web import files

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(files, "open_file", fail)
    served = serve(docroot)
    assert served.ask("/latest.json")[0] == 503
    assert served.errors == [f"{docroot}/latest.json: cannot be served (Input/output error)"]


def test_a_docroot_that_is_gone_answers(serve: Serve, docroot: Path) -> None:
    served = serve(docroot)
    docroot.rename(docroot.with_name("away"))
    assert served.ask("/latest.json")[0] == 404
    docroot.with_name("away").rename(docroot)
    assert served.ask("/latest.json")[0] == 200


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_whole(
    serve: Serve, docroot: Path
) -> None:
    old = os.urandom(1 << 20) * 24
    path = docroot / "big.xz"
    path.write_bytes(old)
    served = serve(docroot)
    with served.connect(receive_buffer_bytes=4096) as client:
        client.sendall(b"GET /big.xz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        begun = client.recv(1000)
        (docroot / "new").write_bytes(b"new")
        (docroot / "new").rename(path)
        assert served.ask("/big.xz")[2] == b"new"
        received = begun + _read_all(client)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(old) in head
    assert hashlib.sha256(body).digest() == hashlib.sha256(old).digest()


def _read_all(client: socket.socket) -> bytes:
    blocks = []
    while block := client.recv(1 << 18):
        blocks.append(block)
    return b"".join(blocks)


def test_a_file_that_is_cut_while_it_is_sent_breaks_the_connection(
    serve: Serve, docroot: Path
) -> None:
    path = docroot / "big.xz"
    path.write_bytes(bytes(24 << 20))
    served = serve(docroot)
    with served.connect(receive_buffer_bytes=4096) as client:
        client.sendall(b"GET /big.xz HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
        os.truncate(path, 10)
        with pytest.raises(ConnectionResetError):
            _read_all(client)
    assert served.ask("/latest.json")[0] == 200


def test_curl_fetches_resumes_and_revalidates(
    serve: Serve, docroot: Path, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("curl")
    served = serve(docroot)
    url = f"http://127.0.0.1:{served.port}/"

    def curl(*arguments: str) -> bytes:
        return subprocess.run(
            ["curl", "-sSf", *arguments], check=True, capture_output=True, cwd=tmp_path, timeout=20
        ).stdout

    assert curl(url + "latest.json") == JSON
    assert curl("--compressed", url + "latest.json") == JSON
    assert curl(url + "sub/" + quote("a b.txt")) == b"text"
    (tmp_path / "partial").write_bytes(JSON[:5000])
    curl("-C", "-", "-o", "partial", url + "latest.json")
    assert (tmp_path / "partial").read_bytes() == JSON
    code = ["-o", "again", "-w", "%{http_code}", url + "latest.json"]
    curl("--etag-save", "etag", "-o", "first", url + "latest.json")
    assert curl("--etag-compare", "etag", *code) == b"304"
    curl("-R", "-o", "dated", url + "latest.json")
    assert curl("-z", "dated", *code) == b"304"
