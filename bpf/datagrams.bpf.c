// Who sends datagrams to whom: for each UDP socket of a control group and each of its peers, the bytes
// both ways; and when a socket is bound and when it is closed.
//
// A socket is known by its cookie. Its process is the one that made it, or bound it. The numbers of a
// peer stay in the table while they grow, so that none is lost between a reading and an emptying: the
// reader takes out what has been quiet for long, or whose socket is closed.
//
// The offsets OFFSET_* come from the running kernel's BTF (perfmeasure/topology/datagram_source.py);
// everything else is UAPI.

#include <uapi/linux/socket.h>
#define _LINUX_SOCKET_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/udp.h>

#include "transport.h"

#define FAMILY_INET6 10

// perfmeasure/topology/datagrams.py knows these layouts. Addresses of IPv4 are mapped into IPv6.
struct owner {
    u64 cgroup_id;
    u32 pid;
    u32 netns;
    u32 existed_before; // it was there before the program
    char command[16];
    u32 padding;
};

struct peer {
    u64 cookie;
    u8 local_address[16];
    u8 remote_address[16];
    u16 local_port;
    u16 remote_port;
    u32 padding;
};

struct numbers {
    u64 bytes_sent; // payload
    u64 bytes_received;
    u64 first_ns;
    u64 last_ns;
    u32 is_first_sent; // the first datagram went out
    u32 padding;
    struct owner owner;
};

struct event {
    u64 cookie;
    u64 time_ns;
    u32 is_closed; // else it was bound
    u32 port;
    u8 address[16];
    struct owner owner;
};

BPF_F_TABLE("hash", u64, struct owner, owners, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct peer, struct numbers, peers, 65536, BPF_F_NO_PREALLOC);
BPF_RINGBUF_OUTPUT(events, RING_PAGES);

enum { LOST_SOCKETS, LOST_PEERS, LOST_EVENTS, COUNTERS };
BPF_ARRAY(lost, u64, COUNTERS);

static inline void count_lost(int which) {
    u64 *count = lost.lookup(&which);
    if (count)
        __sync_fetch_and_add(count, 1);
}

static inline void map_address(u8 *address, u32 ip4) {
    ((u32 *)address)[2] = bpf_htonl(0xffff);
    ((u32 *)address)[3] = ip4;
}

static inline void note_process(struct owner *owner) {
    void *task = (void *)bpf_get_current_task(), *at = 0;
    owner->pid = bpf_get_current_pid_tgid() >> 32;
    owner->cgroup_id = bpf_get_current_cgroup_id();
    bpf_get_current_comm(owner->command, sizeof(owner->command));
    // A socket is made in the network namespace of its process.
    bpf_probe_read_kernel(&at, sizeof(at), task + OFFSET_TASK_NSPROXY);
    bpf_probe_read_kernel(&at, sizeof(at), at + OFFSET_NSPROXY_NET);
    bpf_probe_read_kernel(&owner->netns, sizeof(owner->netns), at + OFFSET_NET_INUM);
}

// ---- sockets: made, bound, closed ---------------------------------------------------------------

int on_made(struct bpf_sock *sk) {
    struct owner owner = {};
    u64 cookie;
    if (sk->protocol != IPPROTO_UDP)
        return 1;
    cookie = bpf_get_socket_cookie(sk);
    note_process(&owner);
    if (owners.update(&cookie, &owner))
        count_lost(LOST_SOCKETS);
    return 1;
}

static inline struct event *begin_event(struct bpf_sock *sk, u32 is_closed) {
    u64 cookie = bpf_get_socket_cookie(sk);
    struct owner *owner = owners.lookup(&cookie);
    struct event *event = events.ringbuf_reserve(sizeof(*event));
    if (!event) {
        count_lost(LOST_EVENTS);
        return 0;
    }
    __builtin_memset(event, 0, sizeof(*event));
    event->cookie = cookie;
    event->time_ns = bpf_ktime_get_ns();
    event->is_closed = is_closed;
    if (owner)
        __builtin_memcpy(&event->owner, owner, sizeof(*owner));
    return event;
}

int on_bound4(struct bpf_sock *sk) {
    if (sk->protocol != IPPROTO_UDP)
        return 1;
    u32 ip4 = sk->src_ip4, port = sk->src_port;
    struct event *event = begin_event(sk, 0);
    if (event) {
        event->port = port;
        map_address(event->address, ip4);
        events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
    }
    return 1;
}

int on_bound6(struct bpf_sock *sk) {
    if (sk->protocol != IPPROTO_UDP)
        return 1;
    u32 words[4] = {sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]};
    u32 port = sk->src_port;
    struct event *event = begin_event(sk, 0);
    if (event) {
        event->port = port;
        __builtin_memcpy(event->address, words, 16);
        events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
    }
    return 1;
}

int on_closed(struct bpf_sock *sk) {
    u64 cookie;
    if (sk->protocol != IPPROTO_UDP)
        return 1;
    struct event *event = begin_event(sk, 1);
    if (event)
        events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
    cookie = bpf_get_socket_cookie(sk);
    owners.delete(&cookie);
    return 1;
}

// ---- datagrams ----------------------------------------------------------------------------------

static inline int see_datagram(struct __sk_buff *skb, int is_sent) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct numbers fresh = {}, *numbers;
    struct bpf_sock *sk = skb->sk;
    struct peer peer = {};
    struct iphdr *ip = data;
    struct ipv6hdr *ip6 = data;
    struct owner *owner;
    if (!sk)
        return 1;
    sk = bpf_sk_fullsock(sk);
    if (!sk || sk->protocol != IPPROTO_UDP)
        return 1;
    u32 offset = transport_offset(data, end, IPPROTO_UDP);
    struct udphdr *udp = data + offset;
    if (!offset || (void *)(udp + 1) > end || (void *)(ip + 1) > end)
        return 1;
    // skb->len is the true length of what the card or the kernel will cut.
    u64 payload_bytes = skb->len - offset - sizeof(*udp), now = bpf_ktime_get_ns();
    if (ip->version == 4) {
        map_address(peer.local_address, is_sent ? ip->saddr : ip->daddr);
        map_address(peer.remote_address, is_sent ? ip->daddr : ip->saddr);
    } else {
        if ((void *)(ip6 + 1) > end)
            return 1;
        __builtin_memcpy(peer.local_address, is_sent ? &ip6->saddr : &ip6->daddr, 16);
        __builtin_memcpy(peer.remote_address, is_sent ? &ip6->daddr : &ip6->saddr, 16);
    }
    peer.cookie = bpf_get_socket_cookie(skb);
    peer.local_port = bpf_ntohs(is_sent ? udp->source : udp->dest);
    peer.remote_port = bpf_ntohs(is_sent ? udp->dest : udp->source);
    numbers = peers.lookup(&peer);
    if (!numbers) {
        fresh.first_ns = now;
        fresh.is_first_sent = is_sent;
        owner = owners.lookup(&peer.cookie);
        if (owner)
            __builtin_memcpy(&fresh.owner, owner, sizeof(fresh.owner));
        peers.insert(&peer, &fresh); // another processor may have been faster
        numbers = peers.lookup(&peer);
        if (!numbers) {
            count_lost(LOST_PEERS);
            return 1;
        }
    }
    __sync_fetch_and_add(is_sent ? &numbers->bytes_sent : &numbers->bytes_received, payload_bytes);
    numbers->last_ns = now;
    return 1;
}

int on_sent(struct __sk_buff *skb) { return see_datagram(skb, 1); }

int on_received(struct __sk_buff *skb) { return see_datagram(skb, 0); }
