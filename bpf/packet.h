/* The one packet parser: from an Ethernet frame to the key of its flow.
 *
 * It is compiled into the kernel programs (by bcc, for the verifier) and as ordinary C. What it reads:
 *
 *   Ethernet, then at most two VLAN tags (802.1Q 0x8100, 802.1ad 0x88a8, and 0x9100 of before 802.1ad),
 *   one that the hardware took out of the frame included;
 *   IPv4 with options; a non-first fragment has ports 0, a first one those of its header;
 *   IPv6 with at most PACKET_MAX_EXTENSIONS extension headers (hop-by-hop, routing, fragment,
 *   destination options, AH); of a non-first fragment the protocol is what its fragment header names;
 *   TCP, UDP and SCTP with their ports, every other protocol by its number, with ports 0: ICMP has none.
 *
 * Everything else has no key, and packet_parse says why (enum packet_verdict). A length of 0 in the IP
 * header (frames that the card is yet to cut, jumbograms) says nothing; any other bounds what belongs to
 * the packet, so that padding is never read as ports.
 */
#ifndef PERFMEASURE_PACKET_H
#define PERFMEASURE_PACKET_H

#include "records.h"

enum { PACKET_MAX_TAGS = 2, PACKET_MAX_EXTENSIONS = 8 };

enum packet_verdict {
    PACKET_PARSED = 0,
    PACKET_NOT_IP = 1,     /* ARP and so on, IEEE 802.3 lengths included */
    PACKET_CUT = 2,        /* ends within a header, of the transport's before PACKET_*_NEEDED */
    PACKET_TAGS = 3,       /* more than two VLAN tags */
    PACKET_MALFORMED = 4,  /* version or lengths of the IP header contradict themselves */
    PACKET_EXTENSIONS = 5, /* more IPv6 extension headers than are followed */
    PACKET_VERDICTS,
};

enum {
    PACKET_ETHERNET_BYTES = 14,
    PACKET_TYPE_IPV4 = 0x0800,
    PACKET_TYPE_IPV6 = 0x86dd,
    PACKET_TYPE_TAG = 0x8100,
    PACKET_TYPE_OUTER_TAG = 0x88a8,
    PACKET_TYPE_OLD_TAG = 0x9100,
    PACKET_HOP_BY_HOP = 0,
    PACKET_TCP = 6,
    PACKET_UDP = 17,
    PACKET_ROUTING = 43,
    PACKET_FRAGMENT = 44,
    PACKET_AH = 51,
    PACKET_DESTINATION = 60,
    PACKET_SCTP = 132,
    PACKET_TCP_NEEDED = 16, /* to the window, the flags before it */
    PACKET_UDP_NEEDED = 4,  /* the ports */
    PACKET_SCTP_NEEDED = 12, /* the common header */
    PACKET_FIN = 0x01,
    PACKET_SYN = 0x02,
    PACKET_RST = 0x04,
    PACKET_ACK = 0x10,
};

#define PACKET_INLINE static inline __attribute__((always_inline))
#define PACKET_UNKNOWN_LENGTH 0x7fffffffu

PACKET_INLINE __u32 packet_u16(const __u8 *at) { return (__u32)at[0] << 8 | at[1]; }

/* Four bytes as they stand. The verifier wants one load where plain C wants no unaligned one. */
PACKET_INLINE __u32 packet_word(const __u8 *at)
{
#ifdef __KERNEL__
    return *(const __u32 *)at;
#else
    __u32 word;
    __builtin_memcpy(&word, at, sizeof(word));
    return word;
#endif
}

PACKET_INLINE int packet_is_tag(__u32 type)
{
    return type == PACKET_TYPE_TAG || type == PACKET_TYPE_OUTER_TAG || type == PACKET_TYPE_OLD_TAG;
}

/* Extension headers by number; all but the fragment header of 8 bytes have their length in byte 1. */
PACKET_INLINE int packet_is_extension(__u32 protocol)
{
    const __u64 extensions = 1ull << PACKET_HOP_BY_HOP | 1ull << PACKET_ROUTING |
                             1ull << PACKET_FRAGMENT | 1ull << PACKET_AH | 1ull << PACKET_DESTINATION;

    return protocol < 64 && extensions >> protocol & 1;
}

/* 1 if a and b, both below 2^31, are equal, else 0, without a branch: the verifier follows both ways
 * of each, in every turn of a loop anew. */
PACKET_INLINE __u32 packet_equal(__u32 a, __u32 b)
{
    __u32 difference = a ^ b;

    __asm__ volatile("" : "+r"(difference)); /* or the compiler makes a branch of it */
    return (difference - 1) >> 31;
}

/* Fill in addresses, ports and protocol of `key`, which the caller has zeroed, and `tcp_flags`, from an
 * IP header at `at`; `type` is the Ethernet type that announced it. Of a packet that is cut, or has too
 * many extension headers, the key has what comes before that place. */
PACKET_INLINE enum packet_verdict packet_parse_ip(const __u8 *at, const __u8 *end, __u32 type,
                                                  struct flow_key *key, __u32 *tcp_flags)
{
    __u32 protocol, length, fragment_offset = 0, left;
    int i;

    if (type == PACKET_TYPE_IPV4) {
        if (at + 20 > end)
            return PACKET_CUT;
        length = (at[0] & 15) * 4;
        left = packet_u16(at + 2);
        if (at[0] >> 4 != 4 || length < 20 || (left && left < length))
            return PACKET_MALFORMED;
        left = left ? left - length : PACKET_UNKNOWN_LENGTH;
        fragment_offset = packet_u16(at + 6) & 0x1fff;
        protocol = at[9];
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        key->src_ip[2] = key->dst_ip[2] = 0xffff0000;
#else
        key->src_ip[2] = key->dst_ip[2] = 0x0000ffff;
#endif
        key->src_ip[3] = packet_word(at + 12);
        key->dst_ip[3] = packet_word(at + 16);
        key->protocol = protocol;
        if (at + length > end)
            return PACKET_CUT;
        at += length;
    } else if (type == PACKET_TYPE_IPV6) {
        if (at + 40 > end)
            return PACKET_CUT;
        if (at[0] >> 4 != 6)
            return PACKET_MALFORMED;
        left = packet_u16(at + 4);
        left = left ? left : PACKET_UNKNOWN_LENGTH;
        protocol = at[6];
        for (i = 0; i < 4; i++) {
            key->src_ip[i] = packet_word(at + 8 + 4 * i);
            key->dst_ip[i] = packet_word(at + 24 + 4 * i);
        }
        key->protocol = protocol;
        at += 40;
        for (i = 0; i < PACKET_MAX_EXTENSIONS; i++) {
            __u32 is_fragment = packet_equal(protocol, PACKET_FRAGMENT);
            __u32 is_ah = packet_equal(protocol, PACKET_AH);

            if (!packet_is_extension(protocol) || fragment_offset)
                break;
            if (at + 8 > end)
                return PACKET_CUT;
            length = (at[1] + 1 + is_ah) * (8 - 4 * is_ah);
            length = is_fragment * 8 + (1 - is_fragment) * length;
            fragment_offset = is_fragment * (packet_u16(at + 2) & 0xfff8);
            if (left < length)
                return PACKET_CUT;
            protocol = at[0];
            left -= length;
            at += length;
        }
        if (at > end)
            return PACKET_CUT;
        if (packet_is_extension(protocol) && !fragment_offset)
            return PACKET_EXTENSIONS;
    } else {
        return PACKET_NOT_IP;
    }

    key->protocol = protocol;
    if (fragment_offset ||
        (protocol != PACKET_TCP && protocol != PACKET_UDP && protocol != PACKET_SCTP))
        return PACKET_PARSED;
    if (left < PACKET_UDP_NEEDED || at + PACKET_UDP_NEEDED > end)
        return PACKET_CUT;
    key->src_port = packet_u16(at);
    key->dst_port = packet_u16(at + 2);
    length = protocol == PACKET_TCP   ? PACKET_TCP_NEEDED
             : protocol == PACKET_UDP ? PACKET_UDP_NEEDED
                                      : PACKET_SCTP_NEEDED;
    if (left < length || at + length > end)
        return PACKET_CUT;
    if (protocol == PACKET_TCP) {
        /* A check of its own, whose bound the verifier knows. */
        if (at + PACKET_TCP_NEEDED > end)
            return PACKET_CUT;
        *tcp_flags = at[13];
    }
    return PACKET_PARSED;
}

/* The same from the Ethernet header on. `tags` is the number of VLAN tags that are no longer in the frame. */
PACKET_INLINE enum packet_verdict packet_parse(const __u8 *data, const __u8 *end, __u32 tags,
                                               struct flow_key *key, __u32 *tcp_flags)
{
    const __u8 *at = data;
    __u32 type;
    int i;

    if (at + PACKET_ETHERNET_BYTES > end)
        return PACKET_CUT;
    type = packet_u16(at + 12);
    at += PACKET_ETHERNET_BYTES;
    for (i = 0; i < PACKET_MAX_TAGS; i++) {
        if (!packet_is_tag(type))
            break;
        if (at + 4 > end)
            return PACKET_CUT;
        type = packet_u16(at + 2);
        at += 4;
        tags++;
    }
    if (tags > PACKET_MAX_TAGS || packet_is_tag(type))
        return PACKET_TAGS;
    return packet_parse_ip(at, end, type, key, tcp_flags);
}

#endif
