/* Counts packets per flow and window. See bpf/README.md for the hooks, the maps and the costs.
 *
 * Definitions: WINDOW_NS, the length of a window; MAX_FLOWS, the room of a window's table;
 * SERVICE_KEY, if the client's port is left out of the key. Optional: ADAPTIVE, if user space changes the
 * length meanwhile; PREFIX_IPV4 and PREFIX_IPV6, if the key is of prefixes (prefix.h), and then
 * EXACT_FLOWS, the room of a second table by the whole key; SKETCH_SEED, for a sketch beside (sketch.h);
 * INTERRUPTIBLE, for the hooks of a control group.
 *
 * A window's number is the time divided by WINDOW_NS, or as the last epoch begun says. Its table is that of slot number % FLOW_SLOTS, if
 * user space has armed that slot for just this window; it empties the table when the window and every
 * program that ran in it have ended. All counters only ever grow, and are per processor: XDP and tc
 * programs run with soft interrupts off, so plain additions do. What a control group sends passes its hook
 * in the process that sends: there a soft interrupt, or another process, may come between the reading
 * and the writing of a counter, so additions have to be one instruction.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/errno.h>
#include <uapi/linux/pkt_cls.h>
#include "records.h"
#include "packet.h"
#ifdef SKETCH_SEED
#include "sketch.h"
#endif
#ifdef PREFIX_IPV4
#include "prefix.h"
#endif

#define PULL_BYTES 256
#define TAG_BYTES 4
#define ALLOW 1

#ifdef INTERRUPTIBLE
#define ADD(counter, amount) __sync_fetch_and_add(&(counter), amount)
#else
#define ADD(counter, amount) ((counter) += (amount))
#endif

BPF_TABLE("percpu_hash", struct flow_key, struct flow_value, flows_0, MAX_FLOWS);
BPF_TABLE("percpu_hash", struct flow_key, struct flow_value, flows_1, MAX_FLOWS);
BPF_TABLE("percpu_hash", struct flow_key, struct flow_value, flows_2, MAX_FLOWS);
BPF_TABLE("percpu_hash", struct flow_key, struct flow_value, flows_3, MAX_FLOWS);
BPF_ARRAY_OF_MAPS(slots, "flows_0", FLOW_SLOTS);
BPF_ARRAY(control, u64, CONTROL_ENTRIES);
BPF_PERCPU_ARRAY(windows, struct window_totals, WINDOW_RING);
/* What each hook saw: a second count of `seen`, to be held against the interface's own. */
BPF_PERCPU_ARRAY(hooks, struct totals, 2 * HOOK_INTERFACES);
BPF_PERCPU_ARRAY(unparsed_reasons, struct totals, PACKET_VERDICTS);
BPF_PERCPU_ARRAY(full_errors, struct totals, ERROR_NUMBERS);
/* What did not fit into a slot's table, by direction and protocol. */
BPF_PERCPU_ARRAY(overflow, struct totals, FLOW_SLOTS * 2 * PROTOCOLS);

#ifdef SERVICE_KEY
struct endpoint {
    u32 ip[4];
    u16 port;
    u16 protocol;
};
/* Endpoints that a SYN showed to be services. One that was forgotten only falls back to the rule. */
BPF_TABLE("lru_hash", struct endpoint, u8, services, 65536);
#endif

#ifdef EXACT_FLOWS
/* The flows of the whole run by the whole key, of the packets that the table by prefix took. */
BPF_TABLE("percpu_hash", struct flow_key, struct totals, exact, EXACT_FLOWS);
BPF_PERCPU_ARRAY(exact_full, struct totals, 1);
#endif

#ifdef SKETCH_SEED
BPF_PERCPU_ARRAY(sketch, struct totals, SKETCH_ROWS * SKETCH_WIDTH);
#endif

#ifdef ADAPTIVE
/* Windows from `first` on begin at `begin_ns` and have the same length, until the next epoch begins. User
 * space writes the epoch that is not in use, to begin in the future. */
struct epoch {
    u64 begin_ns, first, length_ns;
};
BPF_ARRAY(epochs, struct epoch, 2);
#endif

/* One frame as it goes into the table. */
struct frame {
    struct flow_key key;
    u64 now_ns;
    u64 bytes;
    u32 segments;
    u32 tcp_flags;
};

static inline __attribute__((always_inline)) void add(struct totals *totals, u64 bytes)
{
    ADD(totals->packets, 1);
    ADD(totals->bytes, bytes);
}

#ifdef SERVICE_KEY
static inline __attribute__((always_inline)) void drop_client_port(struct frame *frame)
{
    struct flow_key *key = &frame->key;
    struct endpoint source = {}, destination = {};
    u32 flags = frame->tcp_flags;
    u8 known = 1;
    int is_to_service;

    if (!key->src_port && !key->dst_port)
        return;
    __builtin_memcpy(source.ip, key->src_ip, sizeof(source.ip));
    __builtin_memcpy(destination.ip, key->dst_ip, sizeof(destination.ip));
    source.port = key->src_port;
    destination.port = key->dst_port;
    source.protocol = destination.protocol = key->protocol;
    if (flags & PACKET_SYN) {
        is_to_service = !(flags & PACKET_ACK);
        if (is_to_service)
            services.update(&destination, &known);
        else
            services.update(&source, &known);
    } else if (services.lookup(&destination)) {
        is_to_service = 1;
    } else if (services.lookup(&source)) {
        is_to_service = 0;
    } else {
        is_to_service = key->dst_port <= key->src_port;
    }
    if (is_to_service)
        key->src_port = 0;
    else
        key->dst_port = 0;
}
#endif

/* Add a frame to a window's table; return 0, or the error for which there is no entry of it. */
static inline __attribute__((always_inline)) long tally(void *flows, struct frame *frame)
{
    struct flow_value *value = bpf_map_lookup_elem(flows, &frame->key);

    if (!value) {
        struct flow_value none = {};
        long error = bpf_map_update_elem(flows, &frame->key, &none, BPF_NOEXIST);

        /* EEXIST: another processor was quicker. */
        if (error && error != -EEXIST)
            return error;
        value = bpf_map_lookup_elem(flows, &frame->key);
        if (!value)
            return -ENOENT;
    }
    /* Whoever is interrupted between the two was earlier: first_ns stays right, last_ns may be early by
     * that interruption. */
    if (!value->first_ns)
        value->first_ns = frame->now_ns;
    value->last_ns = frame->now_ns;
    ADD(value->packets, 1);
    ADD(value->bytes, frame->bytes);
    ADD(value->segments, frame->segments);
    /* Those of one TCP connection do not interrupt one another: its socket is locked meanwhile. */
    value->tcp_flags |= frame->tcp_flags;
    if ((frame->tcp_flags & (PACKET_SYN | PACKET_ACK)) == PACKET_SYN)
        ADD(value->connects, 1);
    if (frame->tcp_flags & (PACKET_FIN | PACKET_RST))
        ADD(value->closes, 1);
    return 0;
}

static inline __attribute__((always_inline)) int has_begun(u64 now_ns)
{
    u32 index = CONTROL_BEGIN_NS;
    u64 *begin_ns = control.lookup(&index);

    return begin_ns && now_ns >= *begin_ns;
}

#ifdef SKETCH_SEED
static inline __attribute__((always_inline)) void sketch_add(const struct flow_key *key, u64 bytes)
{
    u64 hash = sketch_hash(key);
    int row;

#pragma unroll
    for (row = 0; row < SKETCH_ROWS; row++) {
        u32 index = row * SKETCH_WIDTH + (hash & (SKETCH_WIDTH - 1));
        struct totals *counter = sketch.lookup(&index);

        if (counter)
            add(counter, bytes);
        hash >>= SKETCH_ROW_BITS;
    }
}
#endif

static inline __attribute__((always_inline)) u64 window_at(u64 now_ns)
{
#ifdef ADAPTIVE
    u32 index = 0;
    struct epoch *current = epochs.lookup(&index), *other;

    index = 1;
    other = epochs.lookup(&index);
    if (!current || !other)
        return 0; /* never: the indexes are in range */
    if (other->begin_ns <= now_ns &&
        (current->begin_ns > now_ns || other->begin_ns > current->begin_ns))
        current = other;
    return current->first + (now_ns - current->begin_ns) / current->length_ns;
#else
    return now_ns / WINDOW_NS;
#endif
}

#ifdef EXACT_FLOWS
static inline __attribute__((always_inline)) void tally_exact(struct flow_key *key, u64 bytes)
{
    struct totals none = {}, *value = exact.lookup(key);
    u32 index = 0;

    if (!value) {
        exact.insert(key, &none);
        value = exact.lookup(key);
    }
    if (!value)
        value = exact_full.lookup(&index);
    if (value)
        add(value, bytes);
}
#endif

static inline __attribute__((always_inline)) void count(struct frame *frame, u32 interface,
                                                        u32 direction, u32 verdict)
{
    u64 window = window_at(frame->now_ns);
    u64 bytes = frame->bytes;
    u32 index = window % WINDOW_RING;
    struct window_totals *here = windows.lookup(&index);
    struct totals *other;
    u64 *armed;
    void *flows;
    long error;

    if (!here)
        return; /* never: the index is in range */
    add(&here->seen, bytes);
    index = interface % HOOK_INTERFACES * 2 + direction;
    other = hooks.lookup(&index);
    if (other)
        add(other, bytes);
    if (verdict != PACKET_PARSED) {
        add(&here->unparsed, bytes);
        other = unparsed_reasons.lookup(&verdict);
        if (other)
            add(other, bytes);
        return;
    }
    frame->key.direction = direction;
    frame->key.interface = interface;
#ifdef SERVICE_KEY
    drop_client_port(frame);
#endif
#ifdef EXACT_FLOWS
    struct flow_key whole = frame->key;
#endif
#ifdef PREFIX_IPV4
    prefix_key(&frame->key);
#endif
#ifdef SKETCH_SEED
    sketch_add(&frame->key, bytes);
#endif
    index = window % FLOW_SLOTS;
    armed = control.lookup(&index);
    flows = slots.lookup(&index);
    if (!armed || *armed != window || !flows) {
        add(&here->late, bytes);
        return;
    }
    error = tally(flows, frame);
    if (!error) {
#ifdef EXACT_FLOWS
        tally_exact(&whole, bytes);
#endif
        return;
    }
    add(&here->full, bytes);
    index = (index * 2 + direction) * PROTOCOLS + frame->key.protocol;
    other = overflow.lookup(&index);
    if (other)
        add(other, bytes);
    index = -error;
    other = full_errors.lookup(&index);
    if (other)
        add(other, bytes);
}

static inline __attribute__((always_inline)) int count_skb(struct __sk_buff *skb, u32 direction)
{
    struct frame frame = {};
    u32 tags = skb->vlan_present ? 1 : 0;
    u32 verdict = PACKET_CUT;
    int attempt;

    frame.now_ns = bpf_ktime_get_ns();
    if (!has_begun(frame.now_ns))
        return TC_ACT_UNSPEC;
    for (attempt = 0; attempt < 2; attempt++) {
        u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
        u32 length = skb->len;

        verdict = packet_parse(data, end, tags, &frame.key, &frame.tcp_flags);
        /* Headers may lie outside of what can be read directly: they are brought there once. */
        if (verdict != PACKET_CUT || attempt || (u64)(end - data) >= length)
            break;
        if (bpf_skb_pull_data(skb, length < PULL_BYTES ? length : PULL_BYTES))
            break;
    }
    /* A tag that is kept beside the frame was part of it on the wire. */
    frame.bytes = skb->len + tags * TAG_BYTES;
    frame.segments = skb->gso_segs ? skb->gso_segs : 1;
    count(&frame, skb->ifindex, direction, verdict);
    return TC_ACT_UNSPEC; /* the next program decides */
}

int count_ingress(struct __sk_buff *skb) { return count_skb(skb, FLOW_INGRESS); }

int count_egress(struct __sk_buff *skb) { return count_skb(skb, FLOW_EGRESS); }

int count_xdp(struct xdp_md *context)
{
    struct frame frame = {};
    u32 verdict;

    frame.now_ns = bpf_ktime_get_ns();
    if (!has_begun(frame.now_ns))
        return XDP_PASS;
    verdict = packet_parse((u8 *)(long)context->data, (u8 *)(long)context->data_end, 0, &frame.key,
                           &frame.tcp_flags);
    frame.bytes = bpf_xdp_get_buff_len(context);
    frame.segments = 1;
    count(&frame, context->ingress_ifindex, FLOW_INGRESS, verdict);
    return XDP_PASS;
}

#ifdef INTERRUPTIBLE
/* A packet of a socket of the control group, from its IP header on. The Ethernet header that goes before
 * it is counted, too, so that it has the same length here as on an interface. */
static inline __attribute__((always_inline)) int count_cgroup(struct __sk_buff *skb, u32 direction)
{
    struct frame frame = {};
    u32 verdict;

    frame.now_ns = bpf_ktime_get_ns();
    if (!has_begun(frame.now_ns))
        return ALLOW;
    verdict = packet_parse_ip((u8 *)(long)skb->data, (u8 *)(long)skb->data_end,
                              bpf_ntohs(skb->protocol), &frame.key, &frame.tcp_flags);
    frame.bytes = skb->len + PACKET_ETHERNET_BYTES;
    frame.segments = skb->gso_segs ? skb->gso_segs : 1;
    count(&frame, skb->ifindex, direction, verdict);
    return ALLOW;
}

int count_cgroup_ingress(struct __sk_buff *skb) { return count_cgroup(skb, FLOW_INGRESS); }

int count_cgroup_egress(struct __sk_buff *skb) { return count_cgroup(skb, FLOW_EGRESS); }
#endif
