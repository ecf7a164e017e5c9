// One record for each TCP connection: when it ends, and once each window while it lives. And one for
// each listener, when it begins to listen and when it ends.
//
// The record of a connection is kept in its socket's storage, so it goes when the socket goes.
// Storage is made by the sock_ops program for sockets of one control group (or, where there is no
// cgroup v2, by the state program for all sockets), and by the collector for sockets that were
// there before it. What the kernel counts itself is read when a record is written.
//
// The offsets OFFSET_* come from the running kernel's BTF (perfmeasure/flows/connection_source.py);
// everything else is UAPI.

// The others ask for <linux/socket.h>, which here is the kernel's own and would bring in half of it,
// at 0.4 s a start; what they need of it is UAPI.
#include <uapi/linux/socket.h>
#define _LINUX_SOCKET_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>

#include "transport.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10

enum side { SIDE_UNKNOWN, SIDE_ACTIVE, SIDE_PASSIVE };
enum origin { ORIGIN_NONE, ORIGIN_CONNECT, ORIGIN_LISTEN, ORIGIN_FIRST_IO, ORIGIN_SCAN };

// What flags hold.
#define IS_LISTENER 1
#define EXISTED_BEFORE 2
#define COUNTS_TIMEOUTS 4
#define LOCAL_FIN_FIRST 8
#define REMOTE_FIN_FIRST 16
#define LOCAL_FIN_SENT 32
#define WAS_ESTABLISHED 64
#define IS_CLOSED 128

// perfmeasure/flows/connections.py knows this layout.
struct connection {
    u64 cookie;
    u64 connect_ns;
    u64 syn_ack_ns;
    u64 established_ns; // of a listener: it began to listen
    u64 first_sent_ns;
    u64 last_sent_ns;
    u64 first_received_ns;
    u64 last_received_ns;
    u64 closed_ns;
    u64 acknowledged; // as the kernel counts: payload, and SYN and FIN where they count
    u64 received;
    u64 cgroup_id;
    u32 segments_sent;
    u32 segments_received;
    u32 retransmitted;
    u32 timeouts;
    u32 srtt_us_times_8;
    u32 minimum_rtt_us;
    u32 unacknowledged; // bytes from snd_una to write_seq
    u32 pid;
    u32 netns;
    u32 error;
    u32 segments_told; // both directions, in the last snapshot
    u32 socket_flags;
    u16 flags;
    u16 family;
    u16 local_port;
    u16 remote_port;
    u8 side;
    u8 origin;
    u8 state;
    u8 is_v6only;
    u8 reconnects; // how many connections of this socket were before it
    u8 padding[3];
    u8 local_address[16];
    u8 remote_address[16];
    char command[16];
};

// BPF_F_CLONE: a socket that a listener makes begins with the listener's storage.
struct storage_table_t {
    int key;
    struct connection leaf;
    void *(*sk_storage_get)(void *, void *, int);
    int (*sk_storage_delete)(void *);
    u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct storage_table_t storage = {
    .flags = BPF_F_NO_PREALLOC | BPF_F_CLONE};
BPF_ANNOTATE_KV_PAIR(storage, int, struct connection);

BPF_RINGBUF_OUTPUT(records, RING_PAGES);

enum { LOST_RESERVATIONS, LOST_STORAGE, COUNTERS };
BPF_ARRAY(lost, u64, COUNTERS);

// Set while a snapshot is to hold every connection, not only those with new segments.
BPF_ARRAY(wants_all, u32, 1);

// A SYN meets the listener; its times wait here for the socket that comes of it. An attack must not
// fill this for ever, so the least recently used go; a connection without them has no such times.
struct handshake {
    u8 remote_address[16];
    u16 remote_port;
    u16 local_port;
    u32 sequence;
};
struct handshake_times {
    u64 syn_ns;
    u64 syn_ack_ns;
};
BPF_TABLE("lru_hash", struct handshake, struct handshake_times, handshakes, 16384);

// A listener is seen in its tracepoint, where its address is, and told apart as one of the group in the
// sock_ops call right after it: there its record waits for that.
BPF_TABLE("lru_hash", u64, struct connection, new_listeners, 256);

static inline void count_lost(int which) {
    u64 *count = lost.lookup(&which);
    if (count)
        __sync_fetch_and_add(count, 1);
}

// An IPv4 address as an IPv6 socket sees it, so that both kinds of listener give one key.
static inline void map_address(u32 *address, u32 ip4) {
    address[2] = bpf_htonl(0xffff);
    address[3] = ip4;
}

static inline void note_process(struct connection *c, u8 origin) {
    c->origin = origin;
    c->pid = bpf_get_current_pid_tgid() >> 32;
    c->cgroup_id = bpf_get_current_cgroup_id();
    bpf_get_current_comm(c->command, sizeof(c->command));
}

static inline void begin_active(struct connection *c) {
    // A socket whose connect failed may connect again: it is another connection.
    u8 before = c->reconnects + !!(c->flags & IS_CLOSED);
    __builtin_memset(c, 0, sizeof(*c));
    c->reconnects = before;
    c->side = SIDE_ACTIVE;
    c->connect_ns = bpf_ktime_get_ns();
    note_process(c, ORIGIN_CONNECT);
}

static inline void begin_listener(struct connection *c) {
    __builtin_memset(c, 0, sizeof(*c));
    c->flags = IS_LISTENER;
    note_process(c, ORIGIN_LISTEN);
}

// Turn what was copied from the listener, or is new, into a passive connection's own.
static inline void begin_passive(struct connection *c) {
    c->flags = 0;
    c->established_ns = 0;
    c->side = SIDE_PASSIVE;
}

// ---- what the kernel counted --------------------------------------------------------------------

static inline u32 read_u32(void *base, u32 offset) {
    u32 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), base + offset);
    return value;
}

static inline u16 read_u16(void *base, u32 offset) {
    u16 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), base + offset);
    return value;
}

static inline void fill(struct connection *c, void *sk) {
    void *net = 0;
    u64 socket_flags = 0; // an unsigned long
    u32 unacknowledged = read_u32(sk, OFFSET_SND_UNA);
    c->unacknowledged = read_u32(sk, OFFSET_WRITE_SEQ) - unacknowledged;
    bpf_probe_read_kernel(&c->acknowledged, 8, sk + OFFSET_BYTES_ACKED);
    bpf_probe_read_kernel(&c->received, 8, sk + OFFSET_BYTES_RECEIVED);
    c->segments_sent = read_u32(sk, OFFSET_SEGS_OUT);
    c->segments_received = read_u32(sk, OFFSET_SEGS_IN);
    c->retransmitted = read_u32(sk, OFFSET_TOTAL_RETRANS);
    c->srtt_us_times_8 = read_u32(sk, OFFSET_SRTT_US);
    c->minimum_rtt_us = read_u32(sk, OFFSET_RTT_MIN);
    c->error = read_u32(sk, OFFSET_SK_ERR);
    bpf_probe_read_kernel(&socket_flags, sizeof(socket_flags), sk + OFFSET_SKC_FLAGS);
    c->socket_flags = socket_flags;
    bpf_probe_read_kernel(&net, sizeof(net), sk + OFFSET_SKC_NET);
    c->netns = read_u32(net, OFFSET_NET_INUM);
    c->family = read_u16(sk, OFFSET_SKC_FAMILY);
    bpf_probe_read_kernel(&c->is_v6only, 1, sk + OFFSET_SKC_IPV6ONLY);
    c->is_v6only = !!(c->is_v6only & SKC_IPV6ONLY_BIT);
    c->local_port = bpf_ntohs(read_u16(sk, OFFSET_INET_SPORT));
    c->remote_port = bpf_ntohs(read_u16(sk, OFFSET_SKC_DPORT));
    if (c->family == FAMILY_INET6) {
        bpf_probe_read_kernel(c->local_address, 16, sk + OFFSET_SKC_V6_RCV_SADDR);
        bpf_probe_read_kernel(c->remote_address, 16, sk + OFFSET_SKC_V6_DADDR);
    } else {
        bpf_probe_read_kernel(c->local_address, 4, sk + OFFSET_SKC_RCV_SADDR);
        bpf_probe_read_kernel(c->remote_address, 4, sk + OFFSET_SKC_DADDR);
    }
}

static inline void tell(struct connection *c) {
    struct connection *record = records.ringbuf_reserve(sizeof(*record));
    if (!record) {
        count_lost(LOST_RESERVATIONS);
        return;
    }
    __builtin_memcpy(record, c, sizeof(*record));
    // The reader looks every now and then; waking it for each record would cost ten times more.
    records.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

static inline void fill_listener(struct connection *c, void *sk) {
    begin_listener(c);
    fill(c, sk);
    c->cookie = bpf_get_socket_cookie(sk);
    c->state = BPF_TCP_LISTEN;
    c->established_ns = bpf_ktime_get_ns();
}

// ---- states: a tracepoint with typed arguments --------------------------------------------------

struct state_arguments {
    void *sk;
    u64 old_state;
    u64 new_state;
};

int on_state(struct state_arguments *arguments) {
    void *sk = arguments->sk;
    int old_state = (int)arguments->old_state, new_state = (int)arguments->new_state;
    struct connection *c;

    if (IS_MACHINE_WIDE && (new_state == BPF_TCP_SYN_SENT || new_state == BPF_TCP_SYN_RECV ||
                            new_state == BPF_TCP_LISTEN)) {
        if (read_u16(sk, OFFSET_SK_PROTOCOL) != IPPROTO_TCP)
            return 0;
        c = storage.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        if (!c) {
            count_lost(LOST_STORAGE);
            return 0;
        }
        if (new_state == BPF_TCP_SYN_SENT)
            begin_active(c);
        else if (new_state == BPF_TCP_LISTEN) {
            fill_listener(c, sk);
            tell(c);
        }
    } else if (new_state == BPF_TCP_LISTEN) {
        struct connection fresh = {};
        if (read_u16(sk, OFFSET_SK_PROTOCOL) != IPPROTO_TCP)
            return 0;
        fill_listener(&fresh, sk);
        new_listeners.update(&fresh.cookie, &fresh);
        return 0;
    } else {
        c = storage.sk_storage_get(sk, 0, 0);
        if (!c)
            return 0;
    }
    if (new_state == BPF_TCP_SYN_RECV && c->side != SIDE_ACTIVE)
        begin_passive(c);
    if (c->flags & IS_CLOSED)
        return 0;
    if (c->flags & IS_LISTENER) {
        if (new_state == BPF_TCP_CLOSE) {
            c->flags |= IS_CLOSED;
            c->closed_ns = bpf_ktime_get_ns();
            c->cookie = bpf_get_socket_cookie(sk);
            fill(c, sk);
            tell(c);
        }
        return 0;
    }
    switch (new_state) {
    case BPF_TCP_ESTABLISHED:
        c->established_ns = bpf_ktime_get_ns();
        c->flags |= WAS_ESTABLISHED;
        break;
    case BPF_TCP_FIN_WAIT1:
        c->flags |= LOCAL_FIN_SENT;
        if (!(c->flags & REMOTE_FIN_FIRST))
            c->flags |= LOCAL_FIN_FIRST;
        break;
    case BPF_TCP_CLOSE_WAIT:
        c->flags |= REMOTE_FIN_FIRST;
        break;
    case BPF_TCP_LAST_ACK:
        c->flags |= LOCAL_FIN_SENT;
        break;
    case BPF_TCP_CLOSE:
        c->cookie = bpf_get_socket_cookie(sk);
        c->state = old_state;
        c->flags |= IS_CLOSED;
        c->closed_ns = bpf_ktime_get_ns();
        fill(c, sk);
        tell(c);
    }
    return 0;
}

// ---- the process of an accepted connection: the first that reads or writes ----------------------

struct io_arguments {
    void *sk;
    u64 result;
    u64 flags;
};

int on_io(struct io_arguments *arguments) {
    struct connection *c = storage.sk_storage_get(arguments->sk, 0, 0);
    if (c && c->side == SIDE_PASSIVE && c->origin <= ORIGIN_LISTEN)
        note_process(c, ORIGIN_FIRST_IO);
    return 0;
}

// ---- snapshots: an iterator over all sockets with storage ---------------------------------------

struct storage_arguments {
    void *meta;
    void *map;
    void *sk;
    struct connection *connection;
};

int on_snapshot(struct storage_arguments *arguments) {
    void *sk = arguments->sk;
    struct connection *c = arguments->connection;
    int first = 0;
    if (!sk || !c)
        return 0;
    if (c->flags & (IS_LISTENER | IS_CLOSED))
        return 0;
    u32 *all = wants_all.lookup(&first);
    u32 segments = read_u32(sk, OFFSET_SEGS_IN) + read_u32(sk, OFFSET_SEGS_OUT);
    u8 state = 0;
    bpf_probe_read_kernel(&state, 1, sk + OFFSET_SKC_STATE);
    if (state == BPF_TCP_CLOSE || (segments == c->segments_told && !(all && *all)))
        return 0;
    struct connection *record = records.ringbuf_reserve(sizeof(*record));
    if (!record) {
        count_lost(LOST_RESERVATIONS);
        return 0;
    }
    __builtin_memcpy(record, c, sizeof(*record));
    fill(record, sk);
    record->cookie = bpf_get_socket_cookie(sk);
    record->state = state;
    records.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
    c->segments_told = segments;
    return 0;
}

// ---- where there is a cgroup v2: connects, listeners, timers ------------------------------------

int on_socket_operation(struct bpf_sock_ops *operation) {
    struct bpf_sock *sk = operation->sk;
    struct connection *c;
    if (!sk)
        return 1;
    switch (operation->op) {
    case BPF_SOCK_OPS_TCP_LISTEN_CB:
    case BPF_SOCK_OPS_TCP_CONNECT_CB:
    case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
        c = storage.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        if (!c) {
            count_lost(LOST_STORAGE);
            return 1;
        }
        if (operation->op == BPF_SOCK_OPS_TCP_LISTEN_CB) {
            u64 cookie = bpf_get_socket_cookie(operation);
            struct connection *filled = new_listeners.lookup(&cookie);
            begin_listener(c);
            if (filled) {
                __builtin_memcpy(c, filled, sizeof(*c));
                new_listeners.delete(&cookie);
                tell(c);
            }
            return 1;
        }
        if (operation->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
            begin_active(c);
        } else {
            struct handshake key = {};
            if (c->side == SIDE_UNKNOWN) // its listener had no storage
                begin_passive(c);
            key.remote_port = operation->remote_port >> 16;
            key.local_port = bpf_htons(operation->local_port);
            key.sequence = operation->rcv_nxt - 1;
            u32 *address = (u32 *)key.remote_address;
            if (operation->family == FAMILY_INET6) { // read one by one: the verifier's rule
                address[0] = *(volatile u32 *)&operation->remote_ip6[0];
                address[1] = *(volatile u32 *)&operation->remote_ip6[1];
                address[2] = *(volatile u32 *)&operation->remote_ip6[2];
                address[3] = *(volatile u32 *)&operation->remote_ip6[3];
            } else {
                map_address(address, operation->remote_ip4);
            }
            struct handshake_times *times = handshakes.lookup(&key);
            if (times) {
                c->connect_ns = times->syn_ns;
                c->syn_ack_ns = times->syn_ack_ns;
                handshakes.delete(&key);
            }
            // The segment that completes the handshake met the listener, too.
            struct tcphdr *tcp = operation->skb_data;
            if ((void *)(tcp + 1) <= operation->skb_data_end &&
                operation->skb_len > tcp->doff * 4)
                c->first_received_ns = c->last_received_ns = bpf_ktime_get_ns();
        }
        c->flags |= COUNTS_TIMEOUTS;
        bpf_sock_ops_cb_flags_set(operation,
                                  operation->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTO_CB_FLAG);
        break;
    case BPF_SOCK_OPS_RTO_CB:
        c = storage.sk_storage_get(sk, 0, 0);
        if (c)
            __sync_fetch_and_add(&c->timeouts, 1);
    }
    return 1;
}

// ---- the same: when payload passes, and the SYN ------------------------------------------------

// What a packet of TCP is about; header is 0 if it is not one.
struct segment {
    struct tcphdr *header;
    u32 payload_bytes;
};

static inline struct segment parse(struct __sk_buff *skb) {
    struct segment segment = {};
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    u32 offset = transport_offset(data, end, IPPROTO_TCP);
    struct tcphdr *tcp = data + offset;
    if (!offset || (void *)(tcp + 1) > end)
        return segment;
    segment.header = tcp;
    // skb->len is the true length of a packet that the card or the kernel will cut.
    segment.payload_bytes = skb->len - offset - tcp->doff * 4;
    return segment;
}

static inline void note_handshake(struct __sk_buff *skb, struct tcphdr *tcp, int is_sent) {
    struct handshake key = {};
    struct handshake_times fresh = {}, *times;
    struct bpf_sock *sk = skb->sk;
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct iphdr *ip = data;
    struct ipv6hdr *ip6 = data;
    if (!tcp->syn || tcp->ack != is_sent)
        return;
    key.remote_port = is_sent ? tcp->dest : tcp->source;
    key.local_port = is_sent ? tcp->source : tcp->dest;
    key.sequence = is_sent ? bpf_ntohl(tcp->ack_seq) - 1 : bpf_ntohl(tcp->seq);
    if ((void *)(ip + 1) > end)
        return;
    if (ip->version == 4)
        map_address((u32 *)key.remote_address, is_sent ? ip->daddr : ip->saddr);
    else if ((void *)(ip6 + 1) <= end)
        __builtin_memcpy(key.remote_address, is_sent ? &ip6->daddr : &ip6->saddr, 16);
    if (is_sent) {
        times = handshakes.lookup(&key);
        if (times && !times->syn_ack_ns)
            times->syn_ack_ns = bpf_ktime_get_ns();
    } else {
        fresh.syn_ns = bpf_ktime_get_ns();
        handshakes.insert(&key, &fresh); // a repeated SYN leaves the first one's time
    }
}

static inline int see_packet(struct __sk_buff *skb, int is_sent) {
    struct bpf_sock *sk = skb->sk;
    struct connection *c;
    if (!sk)
        return 1;
    sk = bpf_sk_fullsock(sk);
    if (!sk || sk->protocol != IPPROTO_TCP)
        return 1;
    struct segment segment = parse(skb);
    if (!segment.header)
        return 1;
    if (sk->state == BPF_TCP_LISTEN) {
        note_handshake(skb, segment.header, is_sent);
        return 1;
    }
    if (!segment.payload_bytes && !segment.header->syn)
        return 1;
    c = storage.sk_storage_get(sk, 0, 0);
    if (!c)
        return 1;
    u64 now = bpf_ktime_get_ns();
    if (segment.header->syn && !is_sent && !c->syn_ack_ns)
        c->syn_ack_ns = now;
    if (!segment.payload_bytes)
        return 1;
    if (is_sent) {
        c->last_sent_ns = now;
        if (!c->first_sent_ns)
            c->first_sent_ns = now;
    } else {
        c->last_received_ns = now;
        if (!c->first_received_ns)
            c->first_received_ns = now;
    }
    return 1;
}

int on_sent(struct __sk_buff *skb) { return see_packet(skb, 1); }

int on_received(struct __sk_buff *skb) { return see_packet(skb, 0); }

// ---- where there is none: received payload, from the tracepoint of each segment ----------------

struct probe_arguments {
    void *sk;
    void *skb;
};

int on_probe(struct probe_arguments *arguments) {
    struct connection *c = storage.sk_storage_get(arguments->sk, 0, 0);
    void *data = 0;
    u8 words = 0;
    if (!c)
        return 0;
    bpf_probe_read_kernel(&data, sizeof(data), arguments->skb + OFFSET_SKB_DATA);
    bpf_probe_read_kernel(&words, 1, data + 12);
    if (read_u32(arguments->skb, OFFSET_SKB_LEN) > (words >> 4) * 4) {
        c->last_received_ns = bpf_ktime_get_ns();
        if (!c->first_received_ns)
            c->first_received_ns = c->last_received_ns;
    }
    return 0;
}
