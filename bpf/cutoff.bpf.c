/* Drops, on the recorder's packet socket, what is past the cutoff of its connection, before it is copied
 * into the ring. perfmeasure/recorder/cutoff.py keeps the table; bpf/README.md says how both agree.
 *
 * Definitions: MAX_FLOWS, the room of the table; MAX_CLASSES; RAW_IP, if frames begin with the IP header;
 * FILTER, the user's filter as statements, if there is one.
 *
 * A wrong decision to let a frame through costs a copy, for user space decides by itself about all that
 * it sees. So everything doubtful is let through, and an entry in doubt is lifted: it cuts nothing more
 * until user space has removed it.
 */
#include <uapi/linux/bpf.h>
#include "records.h"
#include "packet.h"

enum { PASS = 262144, DROP = 0, TAG_BYTES = 4, HEADER_BYTES = 128 };

/* One connection past its cutoff. The key's `src` is the end with the lower address, then port. */
struct cut_flow {
    u64 epoch;      /* nothing is cut before user space says that this epoch is done */
    u64 last_ns;    /* CLOCK_MONOTONIC */
    u64 timeout_ns; /* 0: never ends by inactivity */
    u64 packets;    /* cut */
    u64 bytes;
    u64 hash; /* user space's */
    u32 class_id;
    u32 is_lifted;
};

/* What packet_parse may step to from a frame's first byte: headers without a bound that the verifier
 * knows are followed by up to PACKET_MAX_EXTENSIONS of 2 KiB. Only HEADER_BYTES are ever filled. */
struct headers {
    u8 bytes[HEADER_BYTES + (PACKET_MAX_EXTENSIONS + 1) * 2056];
};

BPF_TABLE("hash", struct flow_key, struct cut_flow, cut_flows, MAX_FLOWS);
BPF_ARRAY(epochs_done, u64, 1);
BPF_PERCPU_ARRAY(scratch, struct headers, 1);
/* Every frame that the user wants; and those that were cut, by class. */
BPF_PERCPU_ARRAY(seen, struct totals, 1);
BPF_PERCPU_ARRAY(cut, struct totals, MAX_CLASSES);

static inline __attribute__((always_inline)) void add(struct totals *totals, u64 bytes)
{
    totals->packets += 1;
    totals->bytes += bytes;
}

static inline __attribute__((always_inline)) enum packet_verdict parse(struct __sk_buff *skb, u8 *at,
                                                                       struct flow_key *key, u32 *tcp_flags)
{
    u64 length = skb->len < HEADER_BYTES ? skb->len : HEADER_BYTES;

    __asm__ volatile("" : "+r"(length)); /* or what was known of it is not what the verifier finds */
    if (length < PACKET_ETHERNET_BYTES || bpf_skb_load_bytes(skb, 0, at, length))
        return PACKET_CUT;
#ifdef RAW_IP
    return packet_parse_ip(at, at + length,
                           at[0] >> 4 == 4   ? PACKET_TYPE_IPV4
                           : at[0] >> 4 == 6 ? PACKET_TYPE_IPV6
                                             : 0,
                           key, tcp_flags);
#else
    return packet_parse(at, at + length, skb->vlan_present ? 1 : 0, key, tcp_flags);
#endif
}

static inline __attribute__((always_inline)) int is_turned(const struct flow_key *key)
{
    int i;

#pragma unroll
    for (i = 0; i < 4; i++) {
        u32 src = bpf_ntohl(key->src_ip[i]), dst = bpf_ntohl(key->dst_ip[i]);

        if (src != dst)
            return src > dst;
    }
    return key->src_port > key->dst_port;
}

#ifdef FILTER
static inline __attribute__((always_inline)) u32 is_wanted(struct __sk_buff *skb)
{
    u32 A = 0, X = 0, M[16] = {};

    FILTER
}
#endif

int cutoff(struct __sk_buff *skb)
{
    struct flow_key key = {}, turned = {};
    u32 first = 0, tcp_flags = 0;
    u64 now_ns, bytes = skb->len + (skb->vlan_present ? TAG_BYTES : 0);
    struct headers *headers = scratch.lookup(&first);
    struct totals *totals = seen.lookup(&first);
    u64 *done = epochs_done.lookup(&first);
    struct cut_flow *flow;

    if (!headers || !totals || !done)
        return PASS; /* never: the index is in range */
#ifdef FILTER
    if (!is_wanted(skb))
        return DROP;
#endif
    add(totals, bytes);
    if (parse(skb, headers->bytes, &key, &tcp_flags) != PACKET_PARSED)
        return PASS;
    if (is_turned(&key)) {
        __builtin_memcpy(turned.src_ip, key.dst_ip, sizeof(key.dst_ip));
        __builtin_memcpy(turned.dst_ip, key.src_ip, sizeof(key.src_ip));
        turned.src_port = key.dst_port;
        turned.dst_port = key.src_port;
        turned.protocol = key.protocol;
        flow = cut_flows.lookup(&turned);
    } else {
        flow = cut_flows.lookup(&key);
    }
    if (!flow || flow->is_lifted)
        return PASS;
    now_ns = bpf_ktime_get_ns();
    /* Either may begin a connection anew, which only user space can tell. */
    if ((flow->timeout_ns && now_ns > flow->last_ns && now_ns - flow->last_ns > flow->timeout_ns) ||
        (tcp_flags & (PACKET_SYN | PACKET_ACK)) == PACKET_SYN) {
        flow->is_lifted = 1;
        return PASS;
    }
    flow->last_ns = now_ns;
    /* User space has to see how connections end. */
    if (tcp_flags & (PACKET_FIN | PACKET_RST) || *done < flow->epoch)
        return PASS;
    totals = flow->class_id < MAX_CLASSES ? cut.lookup(&flow->class_id) : 0;
    if (!totals)
        return PASS;
    add(totals, bytes);
    __sync_fetch_and_add(&flow->packets, 1);
    __sync_fetch_and_add(&flow->bytes, bytes);
    return DROP;
}
