/* The recorder's inner loops as plain C: records are walked, frames decoded, connections followed, index
 * rows counted, records copied. native.c makes a Python module of it; tests/recorder/fuzz_core.c runs it
 * under a sanitizer. perfmeasure/recorder/plain.py gives the same answers, and core.py has the structures
 * as numpy dtypes.
 *
 * No function reads outside the buffers whose lengths it is given, whatever is in them.
 */
#ifndef PERFMEASURE_CORE_H
#define PERFMEASURE_CORE_H

#include <stddef.h>
#include <string.h>

#include "link.h"

enum {
    CORE_MAX_CAPTURED = 262144, /* longer records are damage: the limit of tcpdump and Wireshark */
    CORE_PCAP_RECORD = 16,
    CORE_CONNECTION_IDENTITY = 38, /* addresses, ports, protocol, kind */
    CORE_ROW_IDENTITY = 42,        /* and the VLAN numbers */
    CORE_AHEAD = 12,               /* how far ahead tables are fetched into the cache */
};

#define CORE_NONE 0xffffffffu

/* Where a frame is in a buffer, and what its record says of it. */
struct frame {
    __s64 ts_ns;  /* Unix time; of pcapng, until it is converted, the interface's ticks */
    __u64 at;     /* of the frame's first byte in the buffer */
    __u32 captured;
    __u32 original;
    __u16 link;
    __u16 interface;
    __u32 unused;
};

/* What was decoded of a frame. The end with the lower address (then port) is `a`, so that both directions
 * of a connection have one identity. */
struct packet {
    __u8 a_ip[16];
    __u8 b_ip[16];
    __u16 a_port;
    __u16 b_port;
    __u8 protocol;
    __u8 kind; /* 0: has addresses; else the verdict that says why not */
    __u16 vlan[2];
    __u8 direction; /* 0: from a to b */
    __u8 tcp_flags;
    __u8 verdict;
    __u8 unused[3];
    __u64 hash; /* of the first CORE_CONNECTION_IDENTITY bytes */
};

/* One row of a segment's index: a connection with its VLAN numbers. */
struct index_row {
    __u8 identity[CORE_ROW_IDENTITY];
    __u8 unused[6];
    __u64 hash;
    __u32 packets[2]; /* by direction */
    __u64 bytes[2];   /* captured */
};

enum connection_state {
    CONNECTION_FIN_A = 1,
    CONNECTION_FIN_B = 2,
    CONNECTION_RST = 4,
    CONNECTION_FROM_B = 8,     /* the first packet came from b */
    CONNECTION_NO_CUTOFF = 16, /* suspended for this connection */
    CONNECTION_NO_TIMEOUT = 32,
    CONNECTION_ENDED = 64, /* another row has begun anew with this identity */
    CONNECTION_IN_KERNEL = 128, /* the kernel's table has an entry of this identity; `last_ns` may be old */
};

struct connection {
    __u8 identity[CORE_CONNECTION_IDENTITY];
    __u8 state;
    __u8 unused;
    __u64 hash;
    __s64 first_ns;
    __s64 last_ns;
    __u64 bytes;  /* original lengths, what was cut included */
    __u64 cutoff; /* packets are kept while `bytes` before them is below this */
    __u32 packets;
    __u32 class_id;
};

/* A hash table: entries of (the hash's upper half, number of the row plus 1), open addressing. */
struct table {
    __u64 *entries;
    __u64 mask; /* number of entries minus 1, a power of 2 minus 1 */
};

static inline __u32 core_u32(const __u8 *at, int is_big)
{
    if (is_big)
        return packet_u16(at) << 16 | packet_u16(at + 2);
    return (__u32)at[3] << 24 | (__u32)at[2] << 16 | (__u32)at[1] << 8 | at[0];
}

static inline void core_put_u32(__u8 *at, __u32 value)
{
    at[0] = value;
    at[1] = value >> 8;
    at[2] = value >> 16;
    at[3] = value >> 24;
}

/* ---- walking ---------------------------------------------------------------------------------- */

enum walk_stop {
    WALK_MORE = 0,  /* the next record is not whole in the buffer */
    WALK_FULL = 1,  /* no room for more frames */
    WALK_OTHER = 2, /* what stands at the place is for the caller to judge */
};

/* Records of pcap from `*at` on. `unit_ns` is 1 or 1000. */
static size_t core_walk_pcap(const __u8 *data, size_t size, size_t *at, int is_big, __u32 unit_ns,
                             __u32 link, struct frame *frames, size_t room, enum walk_stop *stop)
{
    size_t count = 0, place = *at;

    for (;; count++) {
        const __u8 *record;
        __u32 captured;

        if (place > size || size - place < CORE_PCAP_RECORD) {
            *stop = WALK_MORE;
            break;
        }
        record = data + place;
        captured = core_u32(record + 8, is_big);
        if (captured > CORE_MAX_CAPTURED) {
            *stop = WALK_OTHER;
            break;
        }
        if (size - place - CORE_PCAP_RECORD < captured) {
            *stop = WALK_MORE;
            break;
        }
        if (count == room) {
            *stop = WALK_FULL;
            break;
        }
        frames[count] = (struct frame){
            .ts_ns = (__s64)core_u32(record, is_big) * 1000000000 +
                     (__s64)core_u32(record + 4, is_big) * unit_ns,
            .at = place + CORE_PCAP_RECORD,
            .captured = captured,
            .original = core_u32(record + 12, is_big),
            .link = link,
        };
        place += CORE_PCAP_RECORD + captured;
    }
    *at = place;
    return count;
}

/* A run of enhanced packet blocks of pcapng; every other block, or one that is damaged, stops it.
 * ts_ns gets the ticks, link nothing. */
static size_t core_walk_pcapng(const __u8 *data, size_t size, size_t *at, int is_big, __u32 interfaces,
                               struct frame *frames, size_t room, enum walk_stop *stop)
{
    size_t count = 0, place = *at;

    for (;; count++) {
        const __u8 *block;
        __u32 length, captured, interface;

        if (place > size || size - place < 12) {
            *stop = WALK_MORE;
            break;
        }
        block = data + place;
        length = core_u32(block + 4, is_big);
        if (core_u32(block, is_big) != 6 || length < 32 || length % 4 || length > 16u << 20) {
            *stop = WALK_OTHER;
            break;
        }
        if (size - place < length) {
            *stop = WALK_MORE;
            break;
        }
        interface = core_u32(block + 8, is_big);
        captured = core_u32(block + 20, is_big);
        if (interface >= interfaces || interface > 0xffff || captured > CORE_MAX_CAPTURED ||
            captured > length - 32 || core_u32(block + length - 4, is_big) != length) {
            *stop = WALK_OTHER;
            break;
        }
        if (count == room) {
            *stop = WALK_FULL;
            break;
        }
        frames[count] = (struct frame){
            .ts_ns = (__s64)((__u64)core_u32(block + 12, is_big) << 32 | core_u32(block + 16, is_big)),
            .at = place + 28,
            .captured = captured,
            .original = core_u32(block + 24, is_big),
            .interface = interface,
        };
        place += length;
    }
    *at = place;
    return count;
}

enum {
    RING_BLOCK_HEADER = 48, /* struct tpacket_block_desc */
    RING_FRAME_HEADER = 48, /* struct tpacket3_hdr */
    RING_ADDRESS = 20,      /* struct sockaddr_ll, which follows */
    RING_TAG = 4,
    RING_TAG_VALID = 1 << 4,
    RING_TAG_TYPE_VALID = 1 << 6,
};

static inline __u32 core_own_u32(const __u8 *at)
{
    __u32 word;

    memcpy(&word, at, sizeof(word));
    return word;
}

/* All frames of a block of an AF_PACKET ring (TPACKET_V3). A VLAN tag that the card took out of a frame is
 * put back, in the block, so that the frame is as on the wire. Returns their number, or -1 if the block is
 * none, or has more than `room`. */
static ptrdiff_t core_walk_ring(__u8 *block, size_t size, __u32 link, struct frame *frames, size_t room)
{
    size_t count, i, place;

    if (size < RING_BLOCK_HEADER)
        return -1;
    count = core_own_u32(block + 12);
    place = core_own_u32(block + 16);
    if (count > room)
        return -1;
    for (i = 0; i < count; i++) {
        const __u8 *header = block + place;
        __u32 captured, original, status;
        __u16 mac, tag_type = PACKET_TYPE_TAG;
        size_t at;

        if (place > size || size - place < RING_FRAME_HEADER)
            return -1;
        captured = core_own_u32(header + 12);
        original = core_own_u32(header + 16);
        status = core_own_u32(header + 20);
        memcpy(&mac, header + 24, sizeof(mac));
        if (size - place < mac || size - place - mac < captured)
            return -1;
        at = place + mac;
        if (status & RING_TAG_VALID && link == LINK_ETHERNET && captured >= 12 &&
            mac >= RING_FRAME_HEADER + RING_ADDRESS + RING_TAG) {
            if (status & RING_TAG_TYPE_VALID)
                memcpy(&tag_type, header + 36, sizeof(tag_type));
            at -= RING_TAG;
            captured += RING_TAG;
            original += RING_TAG;
            memmove(block + at, block + at + RING_TAG, 12);
            block[at + 12] = tag_type >> 8;
            block[at + 13] = tag_type;
            block[at + 14] = core_own_u32(header + 32) >> 8;
            block[at + 15] = core_own_u32(header + 32);
        }
        frames[i] = (struct frame){
            .ts_ns = (__s64)core_own_u32(header + 4) * 1000000000 + core_own_u32(header + 8),
            .at = at,
            .captured = captured > CORE_MAX_CAPTURED ? CORE_MAX_CAPTURED : captured,
            .original = original,
            .link = link,
        };
        place += core_own_u32(header);
    }
    return count;
}

/* ---- decoding --------------------------------------------------------------------------------- */

static inline __u64 core_mix(__u64 hash, __u64 word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 32;
}

static inline __u64 core_word(const __u8 *at)
{
    __u64 word;

    memcpy(&word, at, sizeof(word));
    return word;
}

static inline __u64 core_hash(const struct packet *packet, __u64 seed)
{
    const __u8 *at = packet->a_ip;
    __u64 hash = seed;
    int i;

    for (i = 0; i < 32; i += 8)
        hash = core_mix(hash, core_word(at + i));
    return core_mix(hash, (__u64)packet->a_port << 32 | (__u64)packet->b_port << 16 |
                              (__u64)packet->protocol << 8 | packet->kind);
}

static inline int core_compare_ends(const struct flow_key *key)
{
    int order = memcmp(key->src_ip, key->dst_ip, 16);

    return order ? order : (int)key->src_port - (int)key->dst_port;
}

static void core_decode_one(const __u8 *frame, size_t captured, __u32 link, __u64 seed,
                            struct packet *packet)
{
    struct flow_key key;
    __u32 tcp_flags = 0;
    __u16 vlan[2] = {0, 0};
    static const struct flow_key nothing;
    enum packet_verdict verdict;

    memset(&key, 0, sizeof(key));
    verdict = link_parse(frame, frame + captured, link, &key, &tcp_flags, vlan);
    memset(packet, 0, sizeof(*packet));
    packet->verdict = verdict;
    packet->vlan[0] = vlan[0];
    packet->vlan[1] = vlan[1];
    packet->tcp_flags = tcp_flags;
    /* Where the addresses are known, the packet is found by them, even if what follows is cut. */
    if (verdict != PACKET_PARSED && !memcmp(&key, &nothing, sizeof(key))) {
        packet->kind = verdict;
    } else {
        int is_turned = core_compare_ends(&key) > 0;

        packet->direction = is_turned;
        memcpy(packet->a_ip, is_turned ? key.dst_ip : key.src_ip, 16);
        memcpy(packet->b_ip, is_turned ? key.src_ip : key.dst_ip, 16);
        packet->a_port = is_turned ? key.dst_port : key.src_port;
        packet->b_port = is_turned ? key.src_port : key.dst_port;
        packet->protocol = key.protocol;
    }
    packet->hash = core_hash(packet, seed);
}

/* Returns 0, or -1 if a frame is not within the buffer. */
static int core_decode(const __u8 *data, size_t size, const struct frame *frames, size_t count, __u64 seed,
                       struct packet *packets)
{
    size_t i;

    for (i = 0; i < count; i++) {
        if (frames[i].at > size || size - frames[i].at < frames[i].captured)
            return -1;
        core_decode_one(data + frames[i].at, frames[i].captured, frames[i].link, seed, &packets[i]);
    }
    return 0;
}

/* ---- tables ----------------------------------------------------------------------------------- */

static inline __u64 core_entry(__u64 hash, __u32 row) { return (hash & 0xffffffff00000000ull) | (row + 1ull); }

/* Enter rows by their hashes into an empty table, which has more entries than there are rows. */
static void core_fill(struct table table, const __u64 *hashes, const __u32 *numbers, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) {
        __u64 place = hashes[i] & table.mask;

        while (table.entries[place])
            place = (place + 1) & table.mask;
        table.entries[place] = core_entry(hashes[i], numbers[i]);
    }
}

/* Count packets into the rows of an index; groups[i] = 2 * row + direction. Stops before the packet that
 * would need a row beyond `room` and returns how many were done. */
static size_t core_index(const struct packet *packets, const struct frame *frames, size_t count,
                         struct table table, struct index_row *rows, size_t *row_count, size_t room,
                         __u32 *groups)
{
    size_t i;

    for (i = 0; i < count; i++) {
        const struct packet *packet = &packets[i];
        __u64 hash = core_mix(packet->hash, (__u64)packet->vlan[0] << 16 | packet->vlan[1]);
        __u64 place = hash & table.mask, entry;
        struct index_row *row;

        if (i + CORE_AHEAD < count)
            __builtin_prefetch(&table.entries[core_mix(packets[i + CORE_AHEAD].hash,
                                                       (__u64)packets[i + CORE_AHEAD].vlan[0] << 16 |
                                                           packets[i + CORE_AHEAD].vlan[1]) &
                                              table.mask]);
        for (;; place = (place + 1) & table.mask) {
            entry = table.entries[place];
            if (!entry) {
                if (*row_count == room)
                    return i;
                row = &rows[*row_count];
                memset(row, 0, sizeof(*row));
                memcpy(row->identity, packet, CORE_ROW_IDENTITY);
                row->hash = hash;
                table.entries[place] = entry = core_entry(hash, (*row_count)++);
                break;
            }
            if ((entry ^ hash) >> 32)
                continue;
            row = &rows[(__u32)entry - 1];
            if (!memcmp(row->identity, packet, CORE_ROW_IDENTITY))
                break;
        }
        row->packets[packet->direction & 1]++;
        row->bytes[packet->direction & 1] += frames[i].captured;
        groups[i] = 2 * ((__u32)entry - 1) + (packet->direction & 1);
    }
    return count;
}

struct follow_rules {
    __s64 timeout_ns;   /* 0: connections never end by inactivity */
    int ends_by_flags;  /* a SYN after RST, or after FIN both ways, begins a new connection */
    __u64 cutoff;       /* of connections that begin */
};

static inline int core_is_late(const struct connection *row, __s64 ts_ns, const struct follow_rules *rules)
{
    return rules->timeout_ns && !(row->state & CONNECTION_NO_TIMEOUT) &&
           (__s64)((__u64)ts_ns - (__u64)row->last_ns) > rules->timeout_ns;
}

static inline int core_has_ended(const struct connection *row, const struct packet *packet, __s64 ts_ns,
                                 const struct follow_rules *rules)
{
    const __u8 both = CONNECTION_FIN_A | CONNECTION_FIN_B;

    if (core_is_late(row, ts_ns, rules))
        return 1;
    return rules->ends_by_flags && ((row->state & CONNECTION_RST) || (row->state & both) == both) &&
           (packet->tcp_flags & (PACKET_SYN | PACKET_ACK)) == PACKET_SYN;
}

/* Find or begin the connection of each packet; slots[i] is its row, or CORE_NONE for packets that have
 * no addresses. A connection that begins anew has a new row; the old one stays, found no more, and its
 * CONNECTION_IN_KERNEL goes over to the new one. Stops like core_index; and before a packet that would end
 * by inactivity a connection that the kernel has seen more of, whose row is then in slots[i]. */
static size_t core_follow(const struct packet *packets, const struct frame *frames, size_t count,
                          struct table table, struct connection *rows, size_t *row_count, size_t room,
                          const struct follow_rules *rules, __u32 *slots)
{
    size_t i;

    for (i = 0; i < count; i++) {
        const struct packet *packet = &packets[i];
        __u64 hash = packet->hash, place = hash & table.mask, entry;
        struct connection *row = NULL;

        if (i + CORE_AHEAD < count)
            __builtin_prefetch(&table.entries[packets[i + CORE_AHEAD].hash & table.mask]);
        if (packet->kind) {
            slots[i] = CORE_NONE;
            continue;
        }
        for (;; place = (place + 1) & table.mask) {
            entry = table.entries[place];
            if (!entry)
                break;
            if ((entry ^ hash) >> 32)
                continue;
            row = &rows[(__u32)entry - 1];
            if (!memcmp(row->identity, packet, CORE_CONNECTION_IDENTITY))
                break;
            row = NULL;
        }
        if (row && row->state & CONNECTION_IN_KERNEL && core_is_late(row, frames[i].ts_ns, rules)) {
            slots[i] = (__u32)entry - 1;
            return i;
        }
        if (!row || core_has_ended(row, packet, frames[i].ts_ns, rules)) {
            __u8 state = packet->direction ? CONNECTION_FROM_B : 0;

            if (*row_count == room)
                return i;
            if (row) {
                state |= row->state & CONNECTION_IN_KERNEL;
                row->state = (row->state & ~CONNECTION_IN_KERNEL) | CONNECTION_ENDED;
            }
            row = &rows[*row_count];
            memset(row, 0, sizeof(*row));
            memcpy(row->identity, packet, CORE_CONNECTION_IDENTITY);
            row->hash = hash;
            row->state = state;
            row->first_ns = row->last_ns = frames[i].ts_ns;
            row->cutoff = rules->cutoff;
            table.entries[place] = entry = core_entry(hash, (*row_count)++);
        }
        if (frames[i].ts_ns > row->last_ns)
            row->last_ns = frames[i].ts_ns;
        if (packet->tcp_flags & PACKET_FIN)
            row->state |= packet->direction ? CONNECTION_FIN_B : CONNECTION_FIN_A;
        if (packet->tcp_flags & PACKET_RST)
            row->state |= CONNECTION_RST;
        slots[i] = (__u32)entry - 1;
    }
    return count;
}

/* Count packets into their connections; keep[i] is whether the bytes of its connection before it are
 * below the cutoff. Returns -1 if a slot is not below `room`. */
static int core_account(const struct frame *frames, const __u32 *slots, size_t count,
                        struct connection *rows, size_t room, __u8 *keep)
{
    size_t i;

    for (i = 0; i < count; i++) {
        struct connection *row;

        keep[i] = 1;
        if (slots[i] == CORE_NONE)
            continue;
        if (slots[i] >= room)
            return -1;
        row = &rows[slots[i]];
        keep[i] = row->bytes < row->cutoff || row->state & CONNECTION_NO_CUTOFF;
        row->bytes += frames[i].original;
        row->packets++;
    }
    return 0;
}

/* ---- records of segments: nanosecond pcap, little endian --------------------------------------- */

/* Write the frames as records into `out`; places[i] is where the i-th begins, counted from `base`. Returns
 * the bytes written, or -1 if a frame is not within the buffer, `out` is short, or a place needs more
 * than 32 bits. */
static ptrdiff_t core_pack(const __u8 *data, size_t size, const struct frame *frames, size_t count,
                           __u64 base, __u8 *out, size_t out_size, __u32 *places)
{
    size_t i, written = 0;

    for (i = 0; i < count; i++) {
        __u32 captured = frames[i].captured;

        if (frames[i].at > size || size - frames[i].at < captured ||
            out_size - written < CORE_PCAP_RECORD + (size_t)captured || base + written > 0xffffffff)
            return -1;
        places[i] = base + written;
        core_put_u32(out + written, (__u32)(frames[i].ts_ns / 1000000000));
        core_put_u32(out + written + 4, (__u32)(frames[i].ts_ns % 1000000000));
        core_put_u32(out + written + 8, captured);
        core_put_u32(out + written + 12, frames[i].original);
        memcpy(out + written + CORE_PCAP_RECORD, data + frames[i].at, captured);
        written += CORE_PCAP_RECORD + captured;
    }
    return written;
}

/* Read the record headers at `places`. Returns the number that are whole and within the buffer; fewer
 * than `count` means that the next one is not. */
static size_t core_headers(const __u8 *data, size_t size, const __u32 *places, size_t count, __u32 link,
                           struct frame *frames)
{
    size_t i;

    for (i = 0; i < count; i++) {
        const __u8 *record = data + places[i];
        __u32 captured;

        if (places[i] > size || size - places[i] < CORE_PCAP_RECORD)
            return i;
        captured = core_u32(record + 8, 0);
        if (captured > CORE_MAX_CAPTURED || size - places[i] - CORE_PCAP_RECORD < captured)
            return i;
        frames[i] = (struct frame){
            .ts_ns = (__s64)core_u32(record, 0) * 1000000000 + core_u32(record + 4, 0),
            .at = (__u64)places[i] + CORE_PCAP_RECORD,
            .captured = captured,
            .original = core_u32(record + 12, 0),
            .link = link,
        };
    }
    return count;
}

/* Sort places by group: starts[g] is where group g begins in `sorted`, and moves on as it fills; rank[g]
 * is the number that a group gets. Returns -1 if a number is out of range. */
static int core_sort(const __u32 *groups, const __u32 *places, size_t count, const __u32 *rank,
                     size_t group_count, __u32 *starts, __u32 *sorted)
{
    size_t i;

    for (i = 0; i < count; i++) {
        __u32 *start;

        if (groups[i] >= group_count || rank[groups[i]] >= group_count)
            return -1;
        start = &starts[rank[groups[i]]];
        if (*start >= count)
            return -1;
        sorted[(*start)++] = places[i];
    }
    return 0;
}

#endif
