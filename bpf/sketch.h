/* A count-min sketch of packets and bytes per flow: SKETCH_ROWS rows of SKETCH_WIDTH counters, in each
 * of which a flow has one, by a hash of its own for the row. A flow's smallest counter is never below
 * what was counted of it, and above it only by what fell into the same counters. Rows are per
 * processor, and are summed when they are read. perfmeasure/flows/sketch.py has the same hash.
 */
#ifndef PERFMEASURE_SKETCH_H
#define PERFMEASURE_SKETCH_H

#include "records.h"

enum { SKETCH_ROWS = 4, SKETCH_ROW_BITS = 16, SKETCH_WIDTH = 1 << SKETCH_ROW_BITS };

/* 64 bits, of which each row takes 16. SKETCH_SEED is another one in each run, so that nobody can
 * choose flows that meet. */
static inline __attribute__((always_inline)) u64 sketch_hash(const struct flow_key *key)
{
    const u64 *words = (const u64 *)key;
    u64 hash = SKETCH_SEED;
    int i;

#pragma unroll
    for (i = 0; i < sizeof(*key) / 8; i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 32;
    }
    hash *= 0xd6e8feb86659fd93;
    return hash ^ hash >> 32;
}

#endif
