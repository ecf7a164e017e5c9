/* What the programs of bpf/ and user space hand to one another. perfmeasure/flows/keys.py has the same
 * structures as numpy dtypes; tests/flows/test_keys.py compares sizes and offsets with this file. */
#ifndef PERFMEASURE_RECORDS_H
#define PERFMEASURE_RECORDS_H

#include <linux/types.h>

/* Addresses are as on the wire, ports in the machine's order. An IPv4 address is mapped into IPv6
 * (::ffff:a.b.c.d), so that both kinds have one table. */
struct flow_key {
    __u32 src_ip[4];
    __u32 dst_ip[4];
    __u16 src_port;
    __u16 dst_port;
    __u8 protocol;
    __u8 direction;  /* enum flow_direction */
    __u16 interface; /* the low 16 bits of the interface's index */
};

enum flow_direction { FLOW_INGRESS = 0, FLOW_EGRESS = 1 };

/* What is kept of a flow in a window, on one processor. */
struct flow_value {
    __u64 packets;  /* frames as the hook sees them: one of several segments is one */
    __u64 bytes;    /* lengths of those frames, from the Ethernet header on */
    __u64 segments; /* frames on the wire: gso_segs where there are several, else 1 */
    __u64 first_ns; /* CLOCK_MONOTONIC */
    __u64 last_ns;
    __u32 tcp_flags; /* all that were seen, or-ed: byte 13 of the TCP header */
    __u32 connects;  /* TCP: SYN without ACK */
    __u32 closes;    /* TCP: FIN or RST */
    __u32 unused;
};

struct totals {
    __u64 packets;
    __u64 bytes;
};

/* The terms of the conservation law that the kernel counts: seen = drained + full + late + unparsed.
 * Each is counted where it happens; `drained` is the sum over the table. */
struct window_totals {
    struct totals seen;
    struct totals full;     /* no room in the table */
    struct totals late;     /* no table was armed for the window */
    struct totals unparsed; /* no key could be made of the frame */
};

/* control: one entry for each slot, which holds the number of the window it is armed for, then: */
enum { FLOW_SLOTS = 4, CONTROL_BEGIN_NS = FLOW_SLOTS, CONTROL_ENTRIES };

enum {
    WINDOW_RING = 256,   /* windows whose totals are kept; a window is at its number modulo this */
    HOOK_INTERFACES = 1024, /* interfaces are told apart by their index modulo this */
    ERROR_NUMBERS = 256,
    PROTOCOLS = 256,
};

#endif
