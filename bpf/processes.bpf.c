// System calls by user, group, process and call: how many, and how long they took.
//
// Three raw tracepoints. sys_enter keeps when a thread's call began, sys_exit adds its duration to the
// row of its key, sched_process_exit ends the calls that never return (exit itself, a thread killed
// within a call). All of them run in the thread that makes the call, with preemption off, so values
// of this processor can be added to plainly.
//
// Definitions: WANTED_PID, or WANTED_CGROUP (the group is in the map `wanted`); MOST_ROWS; MOST_THREADS.
// One of the first two must be there: the machine as a whole is never traced.
//
// Every call that began is in exactly one of: a row's returned or unreturned count, the open entry of
// its thread, a counter of what had no room. A thread has one entry from its first call to its end
// (to make and delete one for each call costs twice as much); only the thread itself writes it.

#include <linux/ptrace.h>

#if defined(WANTED_PID) == defined(WANTED_CGROUP)
#error "exactly one filter is wanted"
#endif

#define CALL_OF_32_BITS 0x80000000

struct call_key {
    u32 uid, gid, pid, call;
};

struct call_row {
    u64 returned_count, total_ns, min_ns, max_ns, unreturned_count;
};

struct thread_call {
    u64 begun_monotonic_ns;     // 0: the thread is in no call
    struct call_key key;
};

struct call_totals {
    u64 begun;          // calls whose begin was seen
    u64 rows_full;      // calls that ended and had no row, for want of room
    u64 threads_full;   // calls whose begin could not be kept
    u64 unpaired;       // returns without a begin on record: it was before the start, or not kept
};

BPF_TABLE("percpu_hash", struct call_key, struct call_row, rows, MOST_ROWS);
BPF_TABLE("hash", u64, struct thread_call, threads, MOST_THREADS);
BPF_TABLE("percpu_array", u32, struct call_totals, totals, 1);

#ifdef WANTED_CGROUP
BPF_CGROUP_ARRAY(wanted, 1);
#endif

static inline int is_wanted(u64 thread)
{
#ifdef WANTED_PID
    return thread >> 32 == WANTED_PID;
#else
    return wanted.check_current_task(0) == 1;
#endif
}

// 32-bit programs number their calls differently.
static inline int is_32_bit(struct pt_regs *regs)
{
#if defined(__x86_64__)
    u16 code_segment = 0;
    bpf_probe_read_kernel(&code_segment, sizeof(code_segment), &regs->cs);
    return code_segment == 0x23;    // __USER32_CS
#elif defined(__aarch64__)
    u64 state = 0;
    bpf_probe_read_kernel(&state, sizeof(state), &regs->pstate);
    return (state & 0x10) != 0;     // PSR_MODE32_BIT
#else
    return 0;
#endif
}

static inline struct call_row *row_of(struct call_key *key)
{
    struct call_row *row = rows.lookup(key);
    if (row)
        return row;
    struct call_row none = {};
    rows.insert(key, &none);    // fails when another thread was quicker, or there is no room
    return rows.lookup(key);
}

static inline struct call_totals *this_processors_totals(void)
{
    u32 first = 0;
    return totals.lookup(&first);
}

static inline void end_unreturned(struct call_key *key, struct call_totals *total)
{
    struct call_row *row = row_of(key);
    if (row)
        row->unreturned_count++;
    else
        total->rows_full++;
}

int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
    u64 thread = bpf_get_current_pid_tgid();
    if (!is_wanted(thread))
        return 0;
    struct call_totals *total = this_processors_totals();
    if (!total)
        return 0;

    u64 user = bpf_get_current_uid_gid();
    struct thread_call call = {
        .key = {
            .uid = user,
            .gid = user >> 32,
            .pid = thread >> 32,
            .call = ctx->args[1] | (is_32_bit((struct pt_regs *)ctx->args[0]) ? CALL_OF_32_BITS : 0),
        },
    };
    total->begun++;
    struct thread_call *last = threads.lookup(&thread);
    if (last) {
        // A thread that was not the first called execve and went on under the first one's number:
        // its call is still open under the number that has now come again.
        if (last->begun_monotonic_ns) {
            struct call_key key = last->key;
            end_unreturned(&key, total);
        }
        last->key = call.key;
        last->begun_monotonic_ns = bpf_ktime_get_ns();
        return 0;
    }
    call.begun_monotonic_ns = bpf_ktime_get_ns();
    if (threads.insert(&thread, &call))
        total->threads_full++;
    return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 now = bpf_ktime_get_ns();
    u64 thread = bpf_get_current_pid_tgid();
#ifdef WANTED_PID
    if (!is_wanted(thread))
        return 0;
#endif
    struct call_totals *total = this_processors_totals();
    if (!total)
        return 0;
    // With a control group, the record is asked first: a process may have left the group in a call.
    struct thread_call *call = threads.lookup(&thread);
    if (!call || !call->begun_monotonic_ns) {
        if (is_wanted(thread))
            total->unpaired++;
        return 0;
    }
    struct call_key key = call->key;
    u64 duration = now - call->begun_monotonic_ns;
    call->begun_monotonic_ns = 0;

    struct call_row *row = row_of(&key);
    if (!row) {
        total->rows_full++;
        return 0;
    }
    if (row->returned_count == 0 || duration < row->min_ns)
        row->min_ns = duration;
    if (duration > row->max_ns)
        row->max_ns = duration;
    row->total_ns += duration;
    row->returned_count++;
    return 0;
}

int on_thread_end(struct bpf_raw_tracepoint_args *ctx)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call_totals *total = this_processors_totals();
    struct thread_call *call = threads.lookup(&thread);
    if (!call || !total)
        return 0;
    struct call_key key = call->key;
    int is_open = call->begun_monotonic_ns != 0;
    threads.delete(&thread);
    if (is_open)
        end_unreturned(&key, total);
    return 0;
}
