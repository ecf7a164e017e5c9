/* core.h as a Python module of the stable ABI. Arguments are buffers (numpy arrays, bytes, mmap); lengths
 * are checked here, contents in core.h. The interpreter's lock is given up while a loop runs. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "core.h"

enum { MAX_BUFFERS = 6 };

/* The buffers of one call, released together. */
struct buffers {
    Py_buffer list[MAX_BUFFERS];
    int count;
};

static void release(struct buffers *buffers)
{
    while (buffers->count)
        PyBuffer_Release(&buffers->list[--buffers->count]);
}

/* The memory of `object`, which must hold `count` items of `size` bytes, or NULL with an exception. */
static void *take(struct buffers *buffers, PyObject *object, int is_written, size_t count, size_t size)
{
    Py_buffer *buffer = &buffers->list[buffers->count];

    if (PyObject_GetBuffer(object, buffer, is_written ? PyBUF_WRITABLE : PyBUF_SIMPLE))
        return NULL;
    buffers->count++;
    if ((size_t)buffer->len / size < count) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too short");
        return NULL;
    }
    return buffer->buf;
}

static size_t length_of(const struct buffers *buffers, size_t size)
{
    return (size_t)buffers->list[buffers->count - 1].len / size;
}

static PyObject *out_of_range(struct buffers *buffers)
{
    release(buffers);
    PyErr_SetString(PyExc_ValueError, "a number in a buffer is out of range");
    return NULL;
}

static PyObject *fail(struct buffers *buffers)
{
    release(buffers);
    return NULL;
}

static PyObject *walk_pcap(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *data_object, *frames_object;
    Py_ssize_t at_given;
    unsigned int unit_ns, link;
    int is_big;
    const __u8 *data;
    struct frame *frames;
    size_t size, at, room, count;
    enum walk_stop stop;

    (void)self;
    if (!PyArg_ParseTuple(args, "OnpIIO", &data_object, &at_given, &is_big, &unit_ns, &link, &frames_object))
        return NULL;
    if (!(data = take(&held, data_object, 0, 0, 1)))
        return fail(&held);
    size = length_of(&held, 1);
    if (!(frames = take(&held, frames_object, 1, 0, sizeof(*frames))))
        return fail(&held);
    room = length_of(&held, sizeof(*frames));
    at = at_given;
    Py_BEGIN_ALLOW_THREADS
    count = core_walk_pcap(data, size, &at, is_big, unit_ns, link, frames, room, &stop);
    Py_END_ALLOW_THREADS
    release(&held);
    return Py_BuildValue("nni", (Py_ssize_t)count, (Py_ssize_t)at, (int)stop);
}

static PyObject *walk_pcapng(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *data_object, *frames_object;
    Py_ssize_t at_given;
    unsigned int interfaces;
    int is_big;
    const __u8 *data;
    struct frame *frames;
    size_t size, at, room, count;
    enum walk_stop stop;

    (void)self;
    if (!PyArg_ParseTuple(args, "OnpIO", &data_object, &at_given, &is_big, &interfaces, &frames_object))
        return NULL;
    if (!(data = take(&held, data_object, 0, 0, 1)))
        return fail(&held);
    size = length_of(&held, 1);
    if (!(frames = take(&held, frames_object, 1, 0, sizeof(*frames))))
        return fail(&held);
    room = length_of(&held, sizeof(*frames));
    at = at_given;
    Py_BEGIN_ALLOW_THREADS
    count = core_walk_pcapng(data, size, &at, is_big, interfaces, frames, room, &stop);
    Py_END_ALLOW_THREADS
    release(&held);
    return Py_BuildValue("nni", (Py_ssize_t)count, (Py_ssize_t)at, (int)stop);
}

static PyObject *walk_ring(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *block_object, *frames_object;
    unsigned int link;
    __u8 *block;
    struct frame *frames;
    size_t size;
    ptrdiff_t count;

    (void)self;
    if (!PyArg_ParseTuple(args, "OIO", &block_object, &link, &frames_object))
        return NULL;
    if (!(block = take(&held, block_object, 1, 0, 1)))
        return fail(&held);
    size = length_of(&held, 1);
    if (!(frames = take(&held, frames_object, 1, 0, sizeof(*frames))))
        return fail(&held);
    Py_BEGIN_ALLOW_THREADS
    count = core_walk_ring(block, size, link, frames, length_of(&held, sizeof(*frames)));
    Py_END_ALLOW_THREADS
    if (count < 0)
        return out_of_range(&held);
    release(&held);
    return PyLong_FromSsize_t(count);
}

static PyObject *decode(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *data_object, *frames_object, *packets_object;
    Py_ssize_t count;
    unsigned long long seed;
    const __u8 *data;
    const struct frame *frames;
    struct packet *packets;
    size_t size;
    int status;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOnKO", &data_object, &frames_object, &count, &seed, &packets_object))
        return NULL;
    if (!(data = take(&held, data_object, 0, 0, 1)))
        return fail(&held);
    size = length_of(&held, 1);
    if (!(frames = take(&held, frames_object, 0, count, sizeof(*frames))) ||
        !(packets = take(&held, packets_object, 1, count, sizeof(*packets))))
        return fail(&held);
    Py_BEGIN_ALLOW_THREADS
    status = core_decode(data, size, frames, count, seed, packets);
    Py_END_ALLOW_THREADS
    if (status)
        return out_of_range(&held);
    release(&held);
    Py_RETURN_NONE;
}

/* The table, whose number of entries must be a power of 2 above twice that of the rows, or 0. */
static int take_table(struct buffers *held, PyObject *object, size_t rows, struct table *table)
{
    table->entries = take(held, object, 1, 2 * rows + 1, sizeof(*table->entries));
    if (!table->entries)
        return 0;
    table->mask = length_of(held, sizeof(*table->entries)) - 1;
    if (table->mask & (table->mask + 1)) {
        PyErr_SetString(PyExc_ValueError, "the length of a table is no power of 2");
        return 0;
    }
    return 1;
}

static PyObject *fill(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *table_object, *hashes_object, *numbers_object;
    Py_ssize_t count;
    struct table table;
    const __u64 *hashes;
    const __u32 *numbers;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOOn", &table_object, &hashes_object, &numbers_object, &count))
        return NULL;
    if (!(hashes = take(&held, hashes_object, 0, count, sizeof(*hashes))) ||
        !(numbers = take(&held, numbers_object, 0, count, sizeof(*numbers))) ||
        !take_table(&held, table_object, count, &table))
        return fail(&held);
    Py_BEGIN_ALLOW_THREADS
    core_fill(table, hashes, numbers, count);
    Py_END_ALLOW_THREADS
    release(&held);
    Py_RETURN_NONE;
}

static PyObject *index_packets(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *packets_object, *frames_object, *table_object, *rows_object, *groups_object;
    Py_ssize_t count, used;
    const struct packet *packets;
    const struct frame *frames;
    struct index_row *rows;
    struct table table;
    __u32 *groups;
    size_t room, row_count, done;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOnOOnO", &packets_object, &frames_object, &count, &table_object,
                          &rows_object, &used, &groups_object))
        return NULL;
    if (!(packets = take(&held, packets_object, 0, count, sizeof(*packets))) ||
        !(frames = take(&held, frames_object, 0, count, sizeof(*frames))) ||
        !(groups = take(&held, groups_object, 1, count, sizeof(*groups))) ||
        !(rows = take(&held, rows_object, 1, used, sizeof(*rows))))
        return fail(&held);
    room = length_of(&held, sizeof(*rows));
    if (!take_table(&held, table_object, room, &table))
        return fail(&held);
    row_count = used;
    Py_BEGIN_ALLOW_THREADS
    done = core_index(packets, frames, count, table, rows, &row_count, room, groups);
    Py_END_ALLOW_THREADS
    release(&held);
    return Py_BuildValue("nn", (Py_ssize_t)done, (Py_ssize_t)row_count);
}

static PyObject *follow(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *packets_object, *frames_object, *table_object, *rows_object, *slots_object;
    Py_ssize_t count, used;
    const struct packet *packets;
    const struct frame *frames;
    struct connection *rows;
    struct table table;
    struct follow_rules rules;
    long long timeout_ns;
    unsigned long long cutoff;
    int ends_by_flags;
    __u32 *slots;
    size_t room, row_count, done;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOnOOnLpKO", &packets_object, &frames_object, &count, &table_object,
                          &rows_object, &used, &timeout_ns, &ends_by_flags, &cutoff, &slots_object))
        return NULL;
    if (!(packets = take(&held, packets_object, 0, count, sizeof(*packets))) ||
        !(frames = take(&held, frames_object, 0, count, sizeof(*frames))) ||
        !(slots = take(&held, slots_object, 1, count, sizeof(*slots))) ||
        !(rows = take(&held, rows_object, 1, used, sizeof(*rows))))
        return fail(&held);
    room = length_of(&held, sizeof(*rows));
    if (!take_table(&held, table_object, room, &table))
        return fail(&held);
    row_count = used;
    rules = (struct follow_rules){timeout_ns, ends_by_flags, cutoff};
    Py_BEGIN_ALLOW_THREADS
    done = core_follow(packets, frames, count, table, rows, &row_count, room, &rules, slots);
    Py_END_ALLOW_THREADS
    release(&held);
    return Py_BuildValue("nn", (Py_ssize_t)done, (Py_ssize_t)row_count);
}

static PyObject *account(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *frames_object, *slots_object, *rows_object, *keep_object;
    Py_ssize_t count, used;
    const struct frame *frames;
    const __u32 *slots;
    struct connection *rows;
    __u8 *keep;
    int status;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOnOnO", &frames_object, &slots_object, &count, &rows_object, &used,
                          &keep_object))
        return NULL;
    if (!(frames = take(&held, frames_object, 0, count, sizeof(*frames))) ||
        !(slots = take(&held, slots_object, 0, count, sizeof(*slots))) ||
        !(keep = take(&held, keep_object, 1, count, 1)) ||
        !(rows = take(&held, rows_object, 1, used, sizeof(*rows))))
        return fail(&held);
    Py_BEGIN_ALLOW_THREADS
    status = core_account(frames, slots, count, rows, used, keep);
    Py_END_ALLOW_THREADS
    if (status)
        return out_of_range(&held);
    release(&held);
    Py_RETURN_NONE;
}

static PyObject *pack(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *data_object, *frames_object, *out_object, *places_object;
    Py_ssize_t count, written;
    unsigned long long base;
    const __u8 *data;
    const struct frame *frames;
    __u8 *out;
    __u32 *places;
    size_t size, out_size;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOnKOO", &data_object, &frames_object, &count, &base, &out_object,
                          &places_object))
        return NULL;
    if (!(data = take(&held, data_object, 0, 0, 1)))
        return fail(&held);
    size = length_of(&held, 1);
    if (!(frames = take(&held, frames_object, 0, count, sizeof(*frames))) ||
        !(places = take(&held, places_object, 1, count, sizeof(*places))) ||
        !(out = take(&held, out_object, 1, 0, 1)))
        return fail(&held);
    out_size = length_of(&held, 1);
    Py_BEGIN_ALLOW_THREADS
    written = core_pack(data, size, frames, count, base, out, out_size, places);
    Py_END_ALLOW_THREADS
    if (written < 0)
        return out_of_range(&held);
    release(&held);
    return PyLong_FromSsize_t(written);
}

static PyObject *headers(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *data_object, *places_object, *frames_object;
    Py_ssize_t count;
    unsigned int link;
    const __u8 *data;
    const __u32 *places;
    struct frame *frames;
    size_t size, done;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOnIO", &data_object, &places_object, &count, &link, &frames_object))
        return NULL;
    if (!(data = take(&held, data_object, 0, 0, 1)))
        return fail(&held);
    size = length_of(&held, 1);
    if (!(places = take(&held, places_object, 0, count, sizeof(*places))) ||
        !(frames = take(&held, frames_object, 1, count, sizeof(*frames))))
        return fail(&held);
    Py_BEGIN_ALLOW_THREADS
    done = core_headers(data, size, places, count, link, frames);
    Py_END_ALLOW_THREADS
    release(&held);
    return PyLong_FromSize_t(done);
}

static PyObject *sort(PyObject *self, PyObject *args)
{
    struct buffers held = {.count = 0};
    PyObject *groups_object, *places_object, *rank_object, *starts_object, *sorted_object;
    Py_ssize_t count, group_count;
    const __u32 *groups, *places, *rank;
    __u32 *starts, *sorted;
    int status;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOnOnOO", &groups_object, &places_object, &count, &rank_object,
                          &group_count, &starts_object, &sorted_object))
        return NULL;
    if (!(groups = take(&held, groups_object, 0, count, sizeof(*groups))) ||
        !(places = take(&held, places_object, 0, count, sizeof(*places))) ||
        !(rank = take(&held, rank_object, 0, group_count, sizeof(*rank))) ||
        !(starts = take(&held, starts_object, 1, group_count, sizeof(*starts))) ||
        !(sorted = take(&held, sorted_object, 1, count, sizeof(*sorted))))
        return fail(&held);
    Py_BEGIN_ALLOW_THREADS
    status = core_sort(groups, places, count, rank, group_count, starts, sorted);
    Py_END_ALLOW_THREADS
    if (status)
        return out_of_range(&held);
    release(&held);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"walk_pcap", walk_pcap, METH_VARARGS, "Walk records of pcap."},
    {"walk_pcapng", walk_pcapng, METH_VARARGS, "Walk a run of enhanced packet blocks."},
    {"walk_ring", walk_ring, METH_VARARGS, "Walk a block of an AF_PACKET ring."},
    {"decode", decode, METH_VARARGS, "Decode frames."},
    {"fill", fill, METH_VARARGS, "Enter rows into an empty table."},
    {"index_packets", index_packets, METH_VARARGS, "Count packets into the rows of an index."},
    {"follow", follow, METH_VARARGS, "Find or begin the connection of each packet."},
    {"account", account, METH_VARARGS, "Count packets into their connections; decide by the cutoff."},
    {"pack", pack, METH_VARARGS, "Write frames as records of a segment."},
    {"headers", headers, METH_VARARGS, "Read record headers of a segment."},
    {"sort", sort, METH_VARARGS, "Sort places by group."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_native", .m_doc = "core.h", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
