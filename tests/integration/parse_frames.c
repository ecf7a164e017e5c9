/* bpf/packet.h as ordinary C: frames from standard input, each behind its length (32 bits); to standard
 * output, for each, the verdict, the TCP flags and the key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "packet.h"

int main(void)
{
    __u32 length;

    while (fread(&length, sizeof(length), 1, stdin) == 1) {
        /* As long as the frame, so that a sanitizer sees a read beyond it. */
        __u8 *frame = malloc(length);
        struct {
            __u32 verdict;
            __u32 tcp_flags;
            struct flow_key key;
        } found;

        if (!frame || fread(frame, 1, length, stdin) != length)
            return 1;
        memset(&found, 0, sizeof(found));
        found.verdict = packet_parse(frame, frame + length, 0, &found.key, &found.tcp_flags);
        free(frame);
        if (fwrite(&found, sizeof(found), 1, stdout) != 1)
            return 1;
    }
    return 0;
}
