/* From the first byte of a frame to its IP header, for the link types of capture files. What the kernel
 * programs never see is here; the IP header and all that follows is bpf/packet.h's.
 *
 *   Ethernet: any number of VLAN tags up to LINK_MAX_TAGS (802.1Q, 802.1ad, the older 0x9100), an MPLS
 *   stack up to LINK_MAX_LABELS, PPPoE sessions; Linux cooked v1 and v2, with the same after their
 *   EtherType; raw IP; BSD null and loop, whose family is in either byte order.
 */
#ifndef PERFMEASURE_LINK_H
#define PERFMEASURE_LINK_H

#include "packet.h"

/* Link types as capture files number them (LINKTYPE_*). Raw IP has three numbers, of which 12 and 14
 * are what some systems wrote before it had one. */
enum {
    LINK_NULL = 0,
    LINK_ETHERNET = 1,
    LINK_RAW_OLD = 12,
    LINK_RAW_OPENBSD = 14,
    LINK_RAW = 101,
    LINK_LOOP = 108,
    LINK_COOKED = 113,
    LINK_IPV4 = 228,
    LINK_IPV6 = 229,
    LINK_COOKED2 = 276,
};

enum {
    LINK_MAX_TAGS = 8,
    LINK_MAX_LABELS = 16,
    LINK_COOKED_BYTES = 16,
    LINK_COOKED2_BYTES = 20,
    LINK_TYPE_OLD_TAG = 0x9100,
    LINK_TYPE_MPLS = 0x8847,
    LINK_TYPE_MPLS_MULTICAST = 0x8848,
    LINK_TYPE_PPPOE = 0x8864,
    LINK_PPP_IPV4 = 0x0021,
    LINK_PPP_IPV6 = 0x0057,
    LINK_UNKNOWN = PACKET_VERDICTS, /* a verdict: a link type that is not decoded */
};

/* The EtherType that the version of an IP header stands for, or 0. */
static inline __u32 link_type_of_version(const __u8 *at, const __u8 *end)
{
    if (at >= end)
        return 0;
    return at[0] >> 4 == 4 ? PACKET_TYPE_IPV4 : at[0] >> 4 == 6 ? PACKET_TYPE_IPV6 : 0;
}

/* From what an EtherType announces on: tags, labels, sessions, then IP. `vlan` gets the first two VLAN
 * numbers, each plus 1, so that 0 is none. */
static inline enum packet_verdict link_parse_type(const __u8 *at, const __u8 *end, __u32 type,
                                                  struct flow_key *key, __u32 *tcp_flags, __u16 vlan[2])
{
    int tags, labels;

    for (tags = 0; packet_is_tag(type) || type == LINK_TYPE_OLD_TAG; tags++) {
        if (tags == LINK_MAX_TAGS)
            return PACKET_TAGS;
        if (end - at < 4)
            return PACKET_CUT;
        if (tags < 2)
            vlan[tags] = (packet_u16(at) & 0xfff) + 1;
        type = packet_u16(at + 2);
        at += 4;
    }
    if (type == LINK_TYPE_MPLS || type == LINK_TYPE_MPLS_MULTICAST) {
        int is_bottom = 0;

        for (labels = 0; !is_bottom; labels++) {
            if (labels == LINK_MAX_LABELS)
                return PACKET_NOT_IP;
            if (end - at < 4)
                return PACKET_CUT;
            is_bottom = at[2] & 1;
            at += 4;
        }
        type = link_type_of_version(at, end);
    } else if (type == LINK_TYPE_PPPOE) {
        if (end - at < 8)
            return PACKET_CUT;
        type = packet_u16(at + 6);
        type = type == LINK_PPP_IPV4 ? PACKET_TYPE_IPV4 : type == LINK_PPP_IPV6 ? PACKET_TYPE_IPV6 : 0;
        at += 8;
    }
    return packet_parse_ip(at, end, type, key, tcp_flags);
}

/* BSD's family of a null or loop frame: 2 is IPv4 everywhere; IPv6 is 24, 28 or 30, after the system.
 * The byte order of "null" is that of the machine that captured. */
static inline __u32 link_type_of_family(const __u8 *at)
{
    __u32 big = packet_u16(at) << 16 | packet_u16(at + 2);
    __u32 little = (__u32)at[3] << 24 | (__u32)at[2] << 16 | (__u32)at[1] << 8 | at[0];
    __u32 family = big < little ? big : little;

    if (family == 2)
        return PACKET_TYPE_IPV4;
    return family == 24 || family == 28 || family == 30 ? PACKET_TYPE_IPV6 : 0;
}

/* Fill in `key`, `tcp_flags` and `vlan`, all zeroed by the caller, from a frame of the link type. */
static inline enum packet_verdict link_parse(const __u8 *at, const __u8 *end, __u32 link,
                                             struct flow_key *key, __u32 *tcp_flags, __u16 vlan[2])
{
    switch (link) {
    case LINK_ETHERNET:
        if (end - at < PACKET_ETHERNET_BYTES)
            return PACKET_CUT;
        return link_parse_type(at + PACKET_ETHERNET_BYTES, end, packet_u16(at + 12), key, tcp_flags, vlan);
    case LINK_COOKED:
        if (end - at < LINK_COOKED_BYTES)
            return PACKET_CUT;
        return link_parse_type(at + LINK_COOKED_BYTES, end, packet_u16(at + 14), key, tcp_flags, vlan);
    case LINK_COOKED2:
        if (end - at < LINK_COOKED2_BYTES)
            return PACKET_CUT;
        return link_parse_type(at + LINK_COOKED2_BYTES, end, packet_u16(at), key, tcp_flags, vlan);
    case LINK_RAW_OLD:
    case LINK_RAW_OPENBSD:
    case LINK_RAW:
        if (at >= end)
            return PACKET_CUT;
        return packet_parse_ip(at, end, link_type_of_version(at, end), key, tcp_flags);
    case LINK_IPV4:
        return packet_parse_ip(at, end, PACKET_TYPE_IPV4, key, tcp_flags);
    case LINK_IPV6:
        return packet_parse_ip(at, end, PACKET_TYPE_IPV6, key, tcp_flags);
    case LINK_NULL:
    case LINK_LOOP:
        if (end - at < 4)
            return PACKET_CUT;
        return packet_parse_ip(at + 4, end, link_type_of_family(at), key, tcp_flags);
    default:
        return (enum packet_verdict)LINK_UNKNOWN;
    }
}

#endif
