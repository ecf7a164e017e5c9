"""Three machines as network namespaces, with real processes that call one another, and the truth.

The picture: nginx on ``web`` calls app on ``logic``, which calls mysql and redis on ``data``.
Around it is what makes a map wrong: listeners of one port on every loopback, wildcards, IPv6, UDP,
a service that comes back on another port while its old one goes to somebody else, two processes
that share a port, and a process that is gone as soon as it has called.

A process is this file run as a program, under the name of its service: it listens and calls as it
is told on standard input. Each machine is told of by its own ``perfmeasure topology collect``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from perfmeasure import jsonio

LIMIT_SECONDS = 60.0
SHARED_PORT = 9050
"""Somebody listens there on the loopback of every machine."""

_CLONE_NEWNET = 0x40000000
_HEADER = struct.Struct("!II")  # bytes that the caller sends, with this; bytes that it wants
_libc = ctypes.CDLL(None, use_errno=True)


class Edge(NamedTuple):
    """Who calls whom: what a row of the map is about."""

    caller_machine: str
    caller: str
    callee_machine: str
    callee: str
    protocol: str
    port: int


class Amount(NamedTuple):
    """How much, as the caller sees it."""

    bytes_sent: int
    bytes_received: int
    connections: int


@dataclass
class Machine:
    """A network namespace with addresses of its own."""

    name: str
    number: int
    tag: str

    @property
    def namespace(self) -> str:
        """Its name under /run/netns."""
        return f"{self.tag}-{self.name}"

    @property
    def ip4(self) -> str:
        """Its address."""
        return f"10.77.0.{self.number}"

    @property
    def ip6(self) -> str:
        """Its IPv6 address."""
        return f"fd77::{self.number}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread, and what it starts, in the machine."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(f"/run/netns/{self.namespace}")
            yield
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os._exit(70)  # nothing may go on in the wrong network
            os.close(home)


class Service:
    """A process that listens and calls as it is told.

    Args:
        machine: where it runs.
        name: what it calls itself.
    """

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        with machine.inside():
            self._process = subprocess.Popen(
                [sys.executable, __file__, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.pid = self._process.pid

    def tell(self, what: str, *words: object) -> None:
        """Have it do something, and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{' '.join(map(str, (what, *words)))}\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], LIMIT_SECONDS)[0], (self.name, what)
        answer = self._process.stdout.readline()
        assert answer == "done\n", (self.name, what, words, answer)

    def listen(self, protocol: str, ip: str, port: int, *options: str) -> None:
        """Have it listen; options are ``v6only`` and ``reuseport``."""
        self.tell("listen", protocol, ip, port, *options)

    def end(self) -> None:
        """End it, and wait until it has ended."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Machines:
    """The machines, what runs on them, and what has happened between them."""

    machines: dict[str, Machine]
    services: list[Service] = field(default_factory=list)
    _sent: Counter[Edge] = field(default_factory=Counter)
    _received: Counter[Edge] = field(default_factory=Counter)
    _calls: Counter[Edge] = field(default_factory=Counter)

    def start(self, machine: str, name: str) -> Service:
        """Start a process."""
        service = Service(self.machines[machine], name)
        self.services.append(service)
        return service

    def call(
        self,
        caller: Service,
        callee: Service,
        place: tuple[str, str, int],
        amount: tuple[int, int],
        times: int = 1,
    ) -> None:
        """Have a process call another, and write down that it did.

        Args:
            caller: who calls.
            callee: who listens there.
            place: protocol, address and port.
            amount: bytes that the caller sends and receives, each time.
            times: how often.
        """
        protocol, ip, port = place
        sent, received = amount
        caller.tell("call", protocol, ip, port, sent, received, times)
        edge = Edge(
            caller.machine.name, caller.name, callee.machine.name, callee.name, protocol, port
        )
        self._sent[edge] += sent * times
        self._received[edge] += received * times
        self._calls[edge] += times

    @property
    def truth(self) -> dict[Edge, Amount]:
        """What has happened."""
        return {
            edge: Amount(self._sent[edge], self._received[edge], calls)
            for edge, calls in self._calls.items()
        }


@contextlib.contextmanager
def three_machines() -> Iterator[Machines]:
    """Make ``logic``, ``data`` and ``web``, each with a cable to each other."""
    tag = f"pm-{os.getpid()}"
    made = {
        name: Machine(name, number, tag) for number, name in enumerate(("logic", "data", "web"), 1)
    }
    world = Machines(made)
    try:
        for machine in made.values():
            _ip("netns", "add", machine.namespace)
            _ip("-n", machine.namespace, "link", "set", "lo", "up")
        pairs = [("logic", "data"), ("logic", "web"), ("data", "web")]
        for one, other in ((made[a], made[b]) for a, b in pairs):
            _connect(one, other)
        yield world
    finally:
        for service in world.services:
            service.end()
        for machine in made.values():
            subprocess.run(["ip", "netns", "del", machine.namespace], check=False)


class Agent:
    """``perfmeasure topology collect`` on one machine.

    Args:
        machine: where, and what it is called there.
        prefix: its data directory.
        options: more of the command line.
        wrapper: a program that starts it.
        home: run it here, and not in the machine, which need not be made.
    """

    def __init__(
        self,
        machine: Machine,
        prefix: Path,
        *options: str,
        wrapper: tuple[str, ...] = (),
        home: bool = False,
    ) -> None:
        self.log = prefix / "services" / "services.log"
        argv = [*wrapper, sys.executable, "-m", "perfmeasure", "topology", "collect"]
        argv += ["-o", str(prefix)]
        argv += ["--instance-id", machine.name, *options]
        with contextlib.nullcontext() if home else machine.inside():
            self._process = subprocess.Popen(argv, stderr=subprocess.PIPE)
        self.pid = self._process.pid

    def until_ready(self) -> list[str]:
        """Wait until it tells; return what it said before."""
        assert self._process.stderr is not None
        descriptor = self._process.stderr.fileno()
        said = b""
        while not said.endswith(b"READY\n"):
            assert select.select([descriptor], [], [], LIMIT_SECONDS)[0], said
            data = os.read(descriptor, 1 << 16)
            assert data, said
            said += data
        return said.decode().splitlines()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            assert self._process.poll() is None, "the agent ended"
            time.sleep(0.05)

    def stop(self) -> tuple[int, str]:
        """End it in order; return its exit status and what it said."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            said = self._process.communicate(timeout=LIMIT_SECONDS)[1]
        except subprocess.TimeoutExpired:
            self._process.kill()
            said = self._process.communicate()[1]
        return self._process.returncode, said.decode()

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """Return the lines of its log, or those of a kind."""
        found = [jsonio.loads(line) for line in self.log.read_bytes().splitlines()]
        return [line for line in found if not kind or line["record"] == kind]


@contextlib.contextmanager
def agents(world: Machines, folder: Path, *options: str) -> Iterator[dict[str, Agent]]:
    """Have each machine told of; the log of ``web`` is ``folder/web/services/services.log``."""
    running = {
        name: Agent(machine, folder / name, *options) for name, machine in world.machines.items()
    }
    try:
        for agent in running.values():
            agent.until_ready()
        yield running
    finally:
        ends = {name: agent.stop() for name, agent in running.items()}
    assert ends == dict.fromkeys(running, (0, ""))


def play(world: Machines) -> None:
    """Have the services start, call one another, move and end; `Machines.truth` knows what was."""
    logic, data, web = (world.machines[name] for name in ("logic", "data", "web"))
    app = world.start("logic", "app")
    app.listen("tcp", "0.0.0.0", 8000)  # noqa: S104 - a wildcard is what this is about
    mysql = world.start("data", "mysql")
    mysql.listen("tcp", "::", 3306)
    mysql.listen("tcp", "::1", 3307)
    redis = world.start("data", "redis")
    redis.listen("tcp", data.ip4, 6379)
    statsd = world.start("data", "statsd")
    statsd.listen("udp", "0.0.0.0", 8125)  # noqa: S104 - as above
    resolver = world.start("data", "resolver")
    resolver.listen("udp", "::", 5353)
    nginx = world.start("web", "nginx")
    nginx.listen("tcp", "0.0.0.0", 80)  # noqa: S104 - as above
    nginx.listen("tcp", web.ip6, 443)
    for service in (app, mysql, nginx):
        sidecar = world.start(service.machine.name, f"sidecar-{service.machine.name}")
        sidecar.listen("tcp", "127.0.0.1", SHARED_PORT)
        sidecar.listen("tcp", "::1", SHARED_PORT)
        world.call(service, sidecar, ("tcp", "127.0.0.1", SHARED_PORT), (100, 1000), 2)
        world.call(service, sidecar, ("tcp", "::1", SHARED_PORT), (50, 500))
    world.call(nginx, app, ("tcp", logic.ip4, 8000), (400, 70_000), 5)
    world.call(app, mysql, ("tcp", data.ip4, 3306), (3000, 200_000), 3)
    world.call(app, mysql, ("tcp", data.ip6, 3306), (30, 20_000))
    world.call(mysql, mysql, ("tcp", "::1", 3307), (11, 22))
    world.call(app, redis, ("tcp", data.ip4, 6379), (64, 1000), 10)
    world.call(app, statsd, ("udp", data.ip4, 8125), (700, 0), 3)
    world.call(nginx, resolver, ("udp", data.ip6, 5353), (60, 400), 2)
    world.call(nginx, resolver, ("udp", data.ip4, 5353), (61, 401))
    world.call(statsd, resolver, ("udp", "127.0.0.1", 5353), (62, 402))
    _call_once_and_go(world, nginx)
    _share_a_port(world, nginx)
    _move_and_take_over(world, app, redis)


def _call_once_and_go(world: Machines, nginx: Service) -> None:
    """A process calls, and is gone before anybody can look at it."""
    web = nginx.machine
    for ip, port in ((web.ip4, 80), (web.ip6, 443)):
        curl = world.start("data", "curl")
        world.call(curl, nginx, ("tcp", ip, port), (90, 9000))
        curl.end()


def _share_a_port(world: Machines, nginx: Service) -> None:
    """Two processes of one name listen at one port, each with its own socket."""
    workers = [world.start("logic", "worker") for _ in range(2)]
    for worker in workers:
        worker.listen("tcp", "0.0.0.0", 8001, "reuseport")  # noqa: S104 - as above
    world.call(nginx, workers[0], ("tcp", workers[0].machine.ip4, 8001), (40, 4000), 20)


def _move_and_take_over(world: Machines, app: Service, redis: Service) -> None:
    """A service comes back on another port, and its old one goes to somebody else."""
    data = redis.machine
    redis.end()
    moved = world.start("data", "redis")
    moved.listen("tcp", data.ip4, 6380)
    memcached = world.start("data", "memcached")
    memcached.listen("tcp", data.ip4, 6379)
    world.call(app, moved, ("tcp", data.ip4, 6380), (65, 1001), 4)
    world.call(app, memcached, ("tcp", data.ip4, 6379), (66, 1002), 6)


# ---- the network --------------------------------------------------------------------------------


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    finally:
        os.close(descriptor)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def _connect(one: Machine, other: Machine) -> None:
    names = (f"to-{other.name}", f"to-{one.name}")
    peer = ("peer", "name", names[1], "netns", other.namespace)
    _ip("-n", one.namespace, "link", "add", names[0], "type", "veth", *peer)
    for here, there, name in ((one, other, names[0]), (other, one, names[1])):
        space = ("-n", here.namespace)
        _ip(*space, "link", "set", name, "up")
        _ip(*space, "address", "add", f"{here.ip4}/32", "dev", name)
        _ip(*space, "address", "add", f"{here.ip6}/128", "dev", name, "nodad")
        _ip(*space, "route", "add", f"{there.ip4}/32", "dev", name, "src", here.ip4)
        _ip(*space, "-6", "route", "add", f"{there.ip6}/128", "dev", name, "src", here.ip6)


# ---- the process --------------------------------------------------------------------------------


def _socket(protocol: str, ip: str) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    return socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, kind)


def _read(sock: socket.socket, count: int) -> None:
    while count:
        data = sock.recv(min(count, 1 << 16))
        if not data:
            raise ConnectionError
        count -= len(data)


def _answer(sock: socket.socket) -> None:
    with sock:
        sent, wanted = _HEADER.unpack(sock.recv(_HEADER.size, socket.MSG_WAITALL))
        _read(sock, sent - _HEADER.size)
        sock.sendall(bytes(wanted))
        sock.recv(1)  # the caller ends it


def _serve(sock: socket.socket, protocol: str) -> None:
    while True:
        if protocol == "tcp":
            threading.Thread(target=_answer, args=(sock.accept()[0],), daemon=True).start()
            continue
        data, address = sock.recvfrom(1 << 16)
        wanted = _HEADER.unpack_from(data)[1]
        if wanted:
            sock.sendto(bytes(wanted), address)


def _listen(protocol: str, ip: str, port: str, *options: str) -> None:
    sock = _socket(protocol, ip)
    if protocol == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "reuseport" in options:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "v6only" in options)
    sock.bind((ip, int(port)))
    if protocol == "tcp":
        sock.listen()
    threading.Thread(target=_serve, args=(sock, protocol), daemon=True).start()


def _call(*words: str) -> None:
    protocol, ip, port, sent, wanted, times = words
    message = _HEADER.pack(int(sent), int(wanted)).ljust(int(sent), b"x")
    for _ in range(int(times)):
        with _socket(protocol, ip) as sock:
            sock.settimeout(LIMIT_SECONDS)
            sock.connect((ip, int(port)))
            sock.sendall(message)
            if protocol == "tcp":
                _read(sock, int(wanted))
            elif int(wanted):
                sock.recv(1 << 16)


_held: list[socket.socket] = []


def _hold(protocol: str, ip: str, port: str, sent: str, wanted: str) -> None:
    """Call, and keep the connection open until told to release it."""
    sock = _socket(protocol, ip)
    sock.connect((ip, int(port)))
    sock.sendall(_HEADER.pack(int(sent), int(wanted)).ljust(int(sent), b"x"))
    _read(sock, int(wanted))
    _held.append(sock)


def _release() -> None:
    while _held:
        _held.pop().close()


_DOES: dict[str, Callable[..., None]] = {
    "listen": _listen,
    "call": _call,
    "hold": _hold,
    "release": _release,
}


def _main(name: str) -> None:
    Path("/proc/self/comm").write_text(name)
    for line in sys.stdin:
        what, *words = line.split()
        _DOES[what](*words)
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(sys.argv[1])
