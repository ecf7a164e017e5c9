"""A filter that libpcap compiled, as C for the program that the packet socket runs.

A socket has one filter. Where that is ``bpf/cutoff.bpf.c``, the user's filter becomes a part of
it: each instruction of classic BPF (``include/uapi/linux/filter.h``) is one labelled statement.
"""

from __future__ import annotations

import struct

_LOADS = {0x00: "load_word", 0x08: "load_half", 0x10: "load_byte"}
_OPERATORS = {
    0x00: "+", 0x10: "-", 0x20: "*", 0x30: "/", 0x40: "|", 0x50: "&", 0x60: "<<", 0x70: ">>",
    0x90: "%", 0xA0: "^",
}  # fmt: skip
_COMPARISONS = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&"}
_DIVISIONS = "/%"
_BACKWARDS = 1 << 31
"""Jumps from here on are negative ones: a loop, which the kernel does not take either."""
# What is beside the frame is loaded from offsets at the end of all numbers (SKF_AD_OFF).
_BESIDE = 0xFFFFF000
_BESIDE_FIELDS = {
    0: "bpf_ntohs(skb->protocol)", 4: "skb->pkt_type", 8: "skb->ifindex", 44: "skb->vlan_tci",
    48: "skb->vlan_present", 60: "bpf_ntohs(skb->vlan_proto)",
}  # fmt: skip


def filter_source(instructions: bytes) -> str | None:
    """Return statements that return 0 where the filter does; None if there are none for it.

    They use ``skb`` and the variables ``A``, ``X`` and ``M[16]``.

    Args:
        instructions: ``struct sock_filter``, of 8 bytes each.
    """
    statements = []
    for number, (code, if_true, if_false, k) in enumerate(
        struct.iter_unpack("=HBBI", instructions)
    ):
        after = number + 1
        if code & 7 == 5:
            statement = _jump(code, k, after, after + if_true, after + if_false)
        else:
            statement = _statement(code, k)
        if statement is None:
            return None
        statements.append(f"L{number}: {statement};")
    return " ".join(statements)


def _jump(code: int, k: int, after: int, if_true: int, if_false: int) -> str | None:
    operation = code & 0xF0
    if operation == 0:
        return f"goto L{after + k}" if k < _BACKWARDS else None
    if operation not in _COMPARISONS:
        return None
    operand = "X" if code & 8 else f"{k}u"
    return f"if (A {_COMPARISONS[operation]} {operand}) goto L{if_true}; else goto L{if_false}"


def _statement(code: int, k: int) -> str | None:
    kind = code & 7
    if kind in (0, 1):
        return _load(code, k, "AX"[kind])
    if kind in (2, 3):
        return f"M[{k & 15}] = {'AX'[kind - 2]}"
    if kind == 4:
        return _arithmetic(code, k)
    if kind == 6:
        return "return A" if code & 0x18 == 0x10 else f"return {k}u"
    return "A = X" if code & 0x80 else "X = A"


def _load(code: int, k: int, register: str) -> str | None:
    mode, load = code & 0xE0, _LOADS.get(code & 0x18)
    value: str | None = {0x00: f"{k}u", 0x60: f"M[{k & 15}]", 0x80: "skb->len"}.get(mode)
    if mode == 0x20 and k >= _BESIDE:
        value = _BESIDE_FIELDS.get(k - _BESIDE)
    elif mode == 0x20 and load:
        value = f"{load}(skb, {k}u)"
    elif mode == 0x40 and load and k < _BESIDE:
        value = f"{load}(skb, X + {k}u)"
    elif mode == 0xA0:
        value = f"(load_byte(skb, {k}u) & 15) << 2"
    return f"{register} = {value}" if value else None


def _arithmetic(code: int, k: int) -> str | None:
    operation = code & 0xF0
    if operation == 0x80:
        return "A = -A"
    if operation not in _OPERATORS:
        return None
    operator = _OPERATORS[operation]
    if not code & 8:
        return f"A = A {operator} {k}u"
    guard = "if (!X) return 0; " if operator in _DIVISIONS else ""
    return f"{guard}A = A {operator} X"
