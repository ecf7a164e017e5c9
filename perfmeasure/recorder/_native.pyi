from perfmeasure.recorder.records import Array, Data

def walk_pcap(
    data: Data, at: int, is_big: bool, unit_ns: int, link: int, frames: Array, /
) -> tuple[int, int, int]: ...
def walk_pcapng(
    data: Data, at: int, is_big: bool, interfaces: int, frames: Array, /
) -> tuple[int, int, int]: ...
def walk_ring(block: Array, link: int, frames: Array, /) -> int: ...
def decode(data: Data, frames: Array, count: int, seed: int, packets: Array, /) -> None: ...
def fill(table: Array, hashes: Array, numbers: Array, count: int, /) -> None: ...
def index_packets(
    packets: Array, frames: Array, count: int, table: Array, rows: Array, used: int,
    groups: Array, /,
) -> tuple[int, int]: ...  # fmt: skip
def follow(
    packets: Array, frames: Array, count: int, table: Array, rows: Array, used: int,
    timeout_ns: int, ends_by_flags: bool, cutoff: int, slots: Array, /,
) -> tuple[int, int]: ...  # fmt: skip
def account(
    frames: Array, slots: Array, count: int, rows: Array, used: int, keep: Array, /
) -> None: ...
def pack(data: Data, frames: Array, count: int, base: int, out: Data, places: Array, /) -> int: ...
def headers(data: Data, places: Array, count: int, link: int, frames: Array, /) -> int: ...
def sort(
    groups: Array, places: Array, count: int, rank: Array, group_count: int, starts: Array,
    sorted_places: Array, /,
) -> None: ...  # fmt: skip
