/* perfmeasure/recorder/core.h under a sanitizer: fuzz_core FILE cuts | fuzz_core FILE RECORDS SEED.
 *
 * cuts: the file's first n bytes, for every n. Else the file again and again with some bytes changed, until
 * so many records were walked. Every buffer is as long as what is in it, so that the sanitizer sees each
 * read beyond; each frame is decoded in a buffer of its own. */
#include <stdio.h>
#include <stdlib.h>

#include "core.h"

enum { ROOM = 4096, ROWS = 512, ENTRIES = 2048 };

static struct frame frames[ROOM];
static struct packet packets[ROOM];
static unsigned long long state = 1;

static __u32 chance(__u32 below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (__u32)(state >> 33) % below;
}

static void *copy_of(const void *from, size_t size)
{
    void *copy = malloc(size);

    if (size && !copy)
        exit(2);
    if (size)
        memcpy(copy, from, size);
    return copy;
}

static void use(const __u8 *data, size_t size, size_t count)
{
    static const __u32 links[] = {0, 1, 1, 1, 12, 101, 108, 113, 228, 229, 276, 147};
    struct index_row *index_rows = calloc(ROWS, sizeof(*index_rows));
    struct connection *rows = calloc(ROWS, sizeof(*rows));
    __u64 *entries = calloc(2 * ENTRIES, sizeof(*entries));
    struct table one = {entries, ENTRIES - 1}, two = {entries + ENTRIES, ENTRIES - 1};
    struct follow_rules rules = {1000000, 1, 1500};
    __u32 *groups = calloc(count + 1, sizeof(*groups)), *slots = calloc(count + 1, sizeof(*slots));
    __u32 *places = calloc(count + 1, sizeof(*places)), *sorted = calloc(count + 1, sizeof(*sorted));
    __u32 *rank = calloc(2 * ROWS, sizeof(*rank)), *starts = calloc(2 * ROWS, sizeof(*starts));
    __u64 *hashes = calloc(ROWS, sizeof(*hashes));
    __u8 *keep = calloc(count + 1, 1), *out;
    size_t i, row_count = 0, used = 0, total = 0, done;
    ptrdiff_t written;

    for (i = 0; i < count; i++) {
        __u8 *frame;

        if (chance(2))
            frames[i].link = links[chance(sizeof(links) / sizeof(*links))];
        frame = copy_of(data + frames[i].at, frames[i].captured);
        if (frames[i].captured)
            core_decode_one(frame, frames[i].captured, frames[i].link, 1, &packets[i]);
        free(frame);
        total += CORE_PCAP_RECORD + frames[i].captured;
    }
    if (core_decode(data, size, frames, count, 1, packets))
        exit(3);
    done = core_index(packets, frames, count, one, index_rows, &row_count, ROWS, groups);
    core_follow(packets, frames, done, two, rows, &used, ROWS, &rules, slots);
    out = malloc(total ? total : 1);
    written = core_pack(data, size, frames, count, 24, out, total, places);
    if (written != (ptrdiff_t)total)
        exit(4);
    for (i = 0; i < count; i++)
        places[i] -= 24;
    if (core_headers(out, written, places, count, 1, frames) != count)
        exit(5);
    for (i = 0; i < count; i++)
        places[i] = chance(0xffffffff);
    core_headers(out, written, places, count, 1, frames);
    for (i = 0; i < 2 * ROWS; i++)
        rank[i] = chance(2 * ROWS + 1);
    core_sort(groups, places, done, rank, 2 * ROWS, starts, sorted);
    core_account(frames, slots, done, rows, used, keep);
    for (i = 0; i < used; i++)
        starts[i] = i, hashes[i] = rows[i].hash;
    memset(two.entries, 0, ENTRIES * sizeof(*two.entries));
    core_fill(two, hashes, starts, used);
    free(index_rows), free(rows), free(entries), free(groups), free(slots), free(places), free(sorted);
    free(rank), free(starts), free(hashes), free(keep), free(out);
}

static size_t walk(const __u8 *data, size_t size)
{
    static const __u32 units[] = {1, 1000};
    size_t at, count, total = 0;
    enum walk_stop stop;
    int is_big;

    for (at = 0; at + 48 <= size && at < 200; at += 8) {
        __u8 *ring = copy_of(data + at, size - at);
        ptrdiff_t found;

        memcpy(ring + 12, &(__u32){1 + chance(9)}, 4);
        memcpy(ring + 16, &(__u32){chance(96)}, 4);
        found = core_walk_ring(ring, size - at, 1, frames, ROOM);
        if (found > 0)
            use(ring, size - at, found);
        total += found > 0 ? found : 0;
        free(ring);
    }
    for (is_big = 0; is_big < 2; is_big++) {
        at = 24;
        count = core_walk_pcap(data, size, &at, is_big, units[chance(2)], 1, frames, ROOM, &stop);
        use(data, size, count);
        total += count;
        for (at = 0; at + 12 <= size && at < 200; at += 4) {
            size_t place = at;

            count = core_walk_pcapng(data, size, &place, is_big, 2, frames, ROOM, &stop);
            if (count)
                use(data, size, count);
            total += count;
        }
    }
    return total;
}

int main(int argc, char **argv)
{
    FILE *file = argc > 2 ? fopen(argv[1], "rb") : NULL;
    static const __u8 telling[] = {0, 1, 6, 17, 43, 44, 51, 60, 0x81, 0x88, 0x47, 0xff};
    static __u8 whole[1 << 20];
    size_t size, n, total = 0, wanted;

    if (!file)
        return 2;
    size = fread(whole, 1, sizeof(whole), file);
    fclose(file);
    if (!strcmp(argv[2], "cuts")) {
        for (n = 0; n <= size; n++) {
            __u8 *data = copy_of(whole, n);

            total += walk(data, n);
            free(data);
        }
    } else {
        state = strtoull(argv[3], NULL, 10) * 2 + 1;
        wanted = strtoull(argv[2], NULL, 10);
        for (n = 0; total < wanted && n < 10 * wanted; n++) {
            __u8 *data = copy_of(whole, size);
            __u32 changes = 1 + chance(40);

            while (changes--)
                data[chance(size)] = chance(3) ? chance(256) : telling[chance(sizeof(telling))];
            total += walk(data, size);
            free(data);
        }
    }
    printf("%zu\n", total);
    return 0;
}
