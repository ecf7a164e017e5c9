/* Aggregation by prefix: the key of a flow without its ports and the hosts' parts of its addresses.
 * Definitions: PREFIX_IPV4 (0 to 32) and PREFIX_IPV6 (0 to 128), the lengths that are left.
 */
#ifndef PERFMEASURE_PREFIX_H
#define PERFMEASURE_PREFIX_H

#include "records.h"

/* The bits of the prefix in a word of an address of which `length` bits remain from this word on. */
static inline __attribute__((always_inline)) u32 prefix_mask(int length)
{
    if (length >= 32)
        return 0xffffffff;
    return length <= 0 ? 0 : htonl(0xffffffff << (32 - length));
}

static inline __attribute__((always_inline)) void prefix_cut(u32 *address)
{
    int i;

    if (!address[0] && !address[1] && address[2] == htonl(0xffff)) {
        address[3] &= prefix_mask(PREFIX_IPV4);
        return;
    }
#pragma unroll
    for (i = 0; i < 4; i++)
        address[i] &= prefix_mask(PREFIX_IPV6 - 32 * i);
}

static inline __attribute__((always_inline)) void prefix_key(struct flow_key *key)
{
    prefix_cut(key->src_ip);
    prefix_cut(key->dst_ip);
    key->src_port = key->dst_port = 0;
}

#endif
