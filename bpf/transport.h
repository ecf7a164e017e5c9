/* Where the header of TCP or UDP is in a packet that begins at its IP header, as the hooks of a control
 * group get it. */
#ifndef PERFMEASURE_TRANSPORT_H
#define PERFMEASURE_TRANSPORT_H

#define MOST_EXTENSION_HEADERS 4

/* Return its offset; 0 if the packet is of another protocol, or cut, or has too many headers. */
static inline u32 transport_offset(void *data, void *end, u8 wanted) {
    struct iphdr *ip = data;
    struct ipv6hdr *ip6 = data;
    u32 offset;
    u8 protocol;
    if ((void *)(ip + 1) > end)
        return 0;
    if (ip->version == 4)
        return ip->protocol == wanted ? ip->ihl * 4 : 0;
    if ((void *)(ip6 + 1) > end)
        return 0;
    offset = sizeof(*ip6);
    protocol = ip6->nexthdr;
#pragma unroll
    for (int i = 0; i < MOST_EXTENSION_HEADERS; i++) {
        if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING &&
            protocol != IPPROTO_DSTOPTS)
            break;
        u8 *extension = data + offset;
        if ((void *)(extension + 2) > end)
            return 0;
        protocol = extension[0];
        offset += extension[1] * 8 + 8;
    }
    return protocol == wanted ? offset : 0;
}

#endif
