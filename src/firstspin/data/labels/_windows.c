/* The hash table of windows.py: from the ids of registrations to their row and the opening of their label window.
 *
 * A table is made once and never changes, so lookups need no lock. An entry has the whole of a SHORT id, or the hash of
 * a longer one and where its text is: ids are compared, so no result depends on the hash. Most of a lookup is the wait
 * for the memory of its entry; those of a BLOCK of listens overlap.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define BLOCK 128           /* lookups in flight */
#define SHORT 16            /* bytes of an id that are in its entry, as two words */
#define MAX_REACH 4096      /* entries from an id's own one to that where it is; with a random key about a hundred */
#define PER_LINE 2          /* entries per line of the cache */
#define PAGE 4096
#define LARGE (1 << 22)     /* bytes of a table for which large pages are asked */
#define MAX_BYTES INT32_MAX     /* of an id: fewer */
#define N_KEYS 4
#define ABSENT -1

#if defined(__GNUC__)
#define PREFETCH(at) __builtin_prefetch(at)
#else
#define PREFETCH(at) ((void)(at))
#endif

typedef struct {
    uint64_t head, tail;    /* as those of the id; `tail` of a longer one: where it begins in `texts` */
    int64_t opens;
    uint32_t n;             /* 1 more than the bytes of the id, 0 in an empty entry */
    int32_t row;
} Entry;

typedef struct {
    PyObject_HEAD
    uint64_t keys[N_KEYS];
    void *memory;           /* of the entries, which begin with a page */
    Entry *entries;         /* (capacity + MAX_REACH): there is no way round from the last to the first */
    uint64_t capacity;
    int64_t reach;          /* the max of all ids */
    unsigned char *texts;   /* long ids */
    uint64_t used;          /* bytes of the texts */
} Windows;

/* n ids: id i is text[offsets[i]:offsets[i + 1]]. */
typedef struct {
    Py_buffer offsets, text;
    Py_ssize_t n;
} Ids;

typedef struct {
    const unsigned char *at;
    uint64_t head, tail;    /* a SHORT id, zeros after it; `head` is the hash of a longer one */
    uint32_t n;             /* bytes */
    const Entry *home;      /* the entry where the ids of its hash begin */
} Id;

/* ---- ids and hashes ---- */

static int64_t offset(const Ids *ids, Py_ssize_t i)
{
    return ids->offsets.itemsize == 4 ? ((const int32_t *)ids->offsets.buf)[i] : ((const int64_t *)ids->offsets.buf)[i];
}

static inline uint64_t load8(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* From SHORT - n on: n bytes of ones, then zeros. */
static const unsigned char ones[2 * SHORT] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

/* The two halves of the product of 128 bits, XORed. */
static inline uint64_t mix(uint64_t a, uint64_t b)
{
#if defined(__SIZEOF_INT128__)
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    const uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX), left = (a >> 32) * (b & UINT32_MAX);
    const uint64_t right = (a & UINT32_MAX) * (b >> 32), middle = (low >> 32) + (left & UINT32_MAX) + right;
    return (a * b) ^ ((a >> 32) * (b >> 32) + (left >> 32) + (middle >> 32));
#endif
}

/* As in wyhash, but its constants are a random key: nobody can choose ids whose hashes are equal. */
static inline uint64_t hash(const Windows *self, uint64_t state, uint64_t head, uint64_t tail)
{
    return mix(mix(head ^ self->keys[1], tail ^ state) ^ self->keys[2], self->keys[3]);
}

/* Sets the words of a short id that ends so many bytes before the end of the text. */
static inline void take_short(Id *id, int64_t before)
{
    unsigned char alone[SHORT] = {0};
    const unsigned char *at = id->at;

    if (id->n + before < SHORT) {
        for (uint32_t i = 0; i < id->n; i++)
            alone[i] = at[i];
        at = alone;
    }
    id->head = load8(at) & load8(ones + SHORT - id->n);     /* no branch depends on n, which varies */
    id->tail = load8(at + 8) & load8(ones + SHORT + 8 - id->n);
}

/* Sets the words of a long id, and returns its hash. */
static uint64_t take_long(const Windows *self, Id *id)
{
    uint64_t state = self->keys[0] ^ id->n;

    for (uint32_t i = 0; i + SHORT < id->n; i += SHORT)
        state = mix(load8(id->at + i) ^ self->keys[1], load8(id->at + i + 8) ^ state);
    id->head = hash(self, state, load8(id->at + id->n - SHORT), load8(id->at + id->n - SHORT + 8));
    id->tail = 0;
    return id->head;
}

/* Id i, which is within the text; 0 where it is not. Checked as it is read, since others may write to the offsets. */
static inline int take(const Windows *self, const Ids *ids, Py_ssize_t i, Id *id)
{
    const int64_t begin = offset(ids, i), end = offset(ids, i + 1);
    uint64_t hashed;

    if (begin < 0 || begin > end || end > ids->text.len || end - begin >= MAX_BYTES)
        return 0;
    id->at = (const unsigned char *)ids->text.buf + begin;
    id->n = (uint32_t)(end - begin);
    if (id->n > SHORT)
        hashed = take_long(self, id);
    else {
        take_short(id, ids->text.len - end);
        hashed = hash(self, self->keys[0] ^ id->n, id->head, id->tail);
    }
    id->home = self->entries + ((hashed >> 32) * self->capacity >> 32);     /* scaled: the capacity is below 2**32 */
    PREFETCH(id->home);
    PREFETCH(id->home + PER_LINE);      /* an id is often in the line after that of its hash */
    return 1;
}

/* ---- entries ---- */

static inline int is_of(const Windows *self, const Entry *entry, const Id *id)
{
    if (entry->n != id->n + 1 || entry->head != id->head)
        return 0;
    return id->n > SHORT ? !memcmp(self->texts + entry->tail, id->at, id->n) : entry->tail == id->tail;
}

/* The entry of an id, or NULL. */
static inline const Entry *find(const Windows *self, const Id *id)
{
    const Entry *last = id->home + self->reach;

    for (const Entry *entry = id->home; entry <= last && entry->n; entry++)
        if (is_of(self, entry, id))
            return entry;
    return NULL;
}

/* The entries of n ids, at most BLOCK: those at `places`, or those from `from` on. -1 where one is out of bounds. */
static int find_all(const Windows *self, const Ids *ids, const int32_t *places, Py_ssize_t from, Py_ssize_t n,
                    const Entry **found)
{
    Id id[BLOCK];

    for (Py_ssize_t i = 0; i < n; i++) {
        const Py_ssize_t place = places ? places[from + i] : from + i;
        if (place < 0 || place >= ids->n || !take(self, ids, place, &id[i]))
            return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        found[i] = find(self, &id[i]);
    return 0;
}

/* ---- lookups ---- */

/* Writes the places and rows of the listens inside their window and of those without an entry; -1 after bad bounds. */
static Py_ssize_t find_inside(const Windows *self, const Ids *ids, const int64_t *started, uint64_t window,
                              int32_t *places, int32_t *rows)
{
    const Entry *found[BLOCK];
    Py_ssize_t kept = 0;

    for (Py_ssize_t from = 0; from < ids->n; from += BLOCK) {
        const Py_ssize_t n = ids->n - from < BLOCK ? ids->n - from : BLOCK;
        if (find_all(self, ids, NULL, from, n, found) < 0)
            return -1;
        for (Py_ssize_t i = 0; i < n; i++) {
            const int64_t at = started[from + i], opens = found[i] ? found[i]->opens : at;
            places[kept] = (int32_t)(from + i);
            rows[kept] = found[i] ? found[i]->row : ABSENT;
            kept += !found[i] || (at >= opens && (uint64_t)at - (uint64_t)opens < window);  /* exact at all times */
        }
    }
    return kept;
}

/* Writes the rows of the ids at n places, ABSENT without one; -1 after bad bounds. */
static int find_rows(const Windows *self, const Ids *ids, const int32_t *places, Py_ssize_t n, int32_t *rows)
{
    const Entry *found[BLOCK];

    for (Py_ssize_t from = 0; from < n; from += BLOCK) {
        const Py_ssize_t some = n - from < BLOCK ? n - from : BLOCK;
        if (find_all(self, ids, places, from, some, found) < 0)
            return -1;
        for (Py_ssize_t i = 0; i < some; i++)
            rows[from + i] = found[i] ? found[i]->row : ABSENT;
    }
    return 0;
}

/* ---- arguments ---- */

/* Holds a C-contiguous array (n,) whose type is one of `formats`, of `size` bytes or `other`; -1 with an error. */
static int hold(PyObject *of, Py_buffer *view, const char *name, const char *formats, Py_ssize_t size,
                Py_ssize_t other, int flags)
{
    if (PyObject_GetBuffer(of, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return -1;
    if (view->ndim == 1 && view->format && strlen(view->format) == 1 && strchr(formats, *view->format) &&
        (view->itemsize == size || view->itemsize == other) && (uintptr_t)view->buf % view->itemsize == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: not a contiguous array of the right type", name);
    PyBuffer_Release(view);
    return -1;
}

static void let_go(Ids *ids)
{
    PyBuffer_Release(&ids->offsets);    /* what is not held is left alone */
    PyBuffer_Release(&ids->text);
}

static int hold_ids(PyObject *offsets, PyObject *text, Ids *ids)
{
    if (hold(offsets, &ids->offsets, "offsets", "ilq", 4, 8, 0) < 0 ||
        hold(text, &ids->text, "text", "bBc", 1, 1, 0) < 0)
        return -1;
    ids->n = ids->offsets.shape[0] - 1;
    if (ids->n >= 0 && ids->n <= INT32_MAX)
        return 0;
    PyErr_SetString(PyExc_ValueError, "offsets: not one more than there are ids");
    return -1;
}

static PyObject *out_of_bounds(void)
{
    return PyErr_Format(PyExc_ValueError, "an id or a place is out of bounds");
}

static PyObject *windows_inside(Windows *self, PyObject *const *args, Py_ssize_t n_args)
{
    Ids ids = {{0}, {0}, 0};
    Py_buffer started = {0}, places = {0}, rows = {0};
    Py_ssize_t kept = -1;
    long long window;

    if (n_args != 6)
        return PyErr_Format(PyExc_TypeError, "inside takes offsets, text, started, window, places and rows");
    window = PyLong_AsLongLong(args[3]);
    if (window == -1 && PyErr_Occurred())
        return NULL;
    if (hold_ids(args[0], args[1], &ids) == 0 && hold(args[2], &started, "started", "lq", 8, 8, 0) == 0 &&
        hold(args[4], &places, "places", "il", 4, 4, PyBUF_WRITABLE) == 0 &&
        hold(args[5], &rows, "rows", "il", 4, 4, PyBUF_WRITABLE) == 0) {
        if (window < 0 || started.shape[0] != ids.n || places.shape[0] != ids.n || rows.shape[0] != ids.n)
            PyErr_SetString(PyExc_ValueError, "a negative window, or arrays of other lengths");
        else {
            Py_BEGIN_ALLOW_THREADS
            kept = find_inside(self, &ids, started.buf, (uint64_t)window, places.buf, rows.buf);
            Py_END_ALLOW_THREADS
            if (kept < 0)
                out_of_bounds();
        }
    }
    let_go(&ids);
    PyBuffer_Release(&started);
    PyBuffer_Release(&places);
    PyBuffer_Release(&rows);
    return kept < 0 ? NULL : PyLong_FromSsize_t(kept);
}

static PyObject *windows_rows(Windows *self, PyObject *const *args, Py_ssize_t n_args)
{
    Ids ids = {{0}, {0}, 0};
    Py_buffer places = {0}, rows = {0};
    int status = -1;

    if (n_args != 4)
        return PyErr_Format(PyExc_TypeError, "rows takes offsets, text, places and rows");
    if (hold_ids(args[0], args[1], &ids) == 0 && hold(args[2], &places, "places", "il", 4, 4, 0) == 0 &&
        hold(args[3], &rows, "rows", "il", 4, 4, PyBUF_WRITABLE) == 0) {
        if (places.shape[0] != rows.shape[0])
            PyErr_SetString(PyExc_ValueError, "places and rows of other lengths");
        else {
            Py_BEGIN_ALLOW_THREADS
            status = find_rows(self, &ids, places.buf, places.shape[0], rows.buf);
            Py_END_ALLOW_THREADS
            if (status < 0)
                out_of_bounds();
        }
    }
    let_go(&ids);
    PyBuffer_Release(&places);
    PyBuffer_Release(&rows);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- construction ---- */

/* Some registrations, of which ids, rows and openings are arrays. */
typedef struct {
    Ids ids;
    Py_buffer rows, opens;
} Part;

static int hold_part(PyObject *of, Part *part)
{
    if (!PyTuple_CheckExact(of) || PyTuple_GET_SIZE(of) != 4) {
        PyErr_SetString(PyExc_TypeError, "parts: not tuples of offsets, text, rows and opens");
        return -1;
    }
    if (hold_ids(PyTuple_GET_ITEM(of, 0), PyTuple_GET_ITEM(of, 1), &part->ids) < 0 ||
        hold(PyTuple_GET_ITEM(of, 2), &part->rows, "rows", "il", 4, 4, 0) < 0 ||
        hold(PyTuple_GET_ITEM(of, 3), &part->opens, "opens", "lq", 8, 8, 0) < 0)
        return -1;
    if (part->rows.shape[0] == part->ids.n && part->opens.shape[0] == part->ids.n)
        return 0;
    PyErr_SetString(PyExc_ValueError, "parts: arrays of other lengths");
    return -1;
}

static void let_go_of_part(Part *part)
{
    let_go(&part->ids);
    PyBuffer_Release(&part->rows);
    PyBuffer_Release(&part->opens);
}

/* Puts an id into the table, whose texts have room for `size` bytes: NULL, or why it can't be there. */
static const char *put(Windows *self, const Id *id, int32_t row, int64_t opens, uint64_t size)
{
    Entry *entry = self->entries + (id->home - self->entries);
    int64_t reach = 0;

    if (row < 0)
        return "a row is negative";
    for (; entry->n; entry++) {
        if (is_of(self, entry, id))
            return "an id is there twice";
        if (++reach == MAX_REACH)
            return "the hashes of too many ids are alike";
    }
    *entry = (Entry){.head = id->head, .tail = id->tail, .opens = opens, .n = id->n + 1, .row = row};
    if (id->n > SHORT) {
        if (size - self->used < id->n)
            return "an id is out of bounds";
        entry->tail = self->used;
        memcpy(self->texts + self->used, id->at, id->n);
        self->used += id->n;
    }
    self->reach = reach > self->reach ? reach : self->reach;
    return NULL;
}

/* Puts the registrations of a part into the table: NULL, or what is wrong. */
static const char *put_part(Windows *self, const Part *part, uint64_t size)
{
    const int32_t *rows = part->rows.buf;
    const int64_t *opens = part->opens.buf;
    Id id[BLOCK];
    const char *wrong = NULL;

    for (Py_ssize_t from = 0; !wrong && from < part->ids.n; from += BLOCK) {
        const Py_ssize_t n = part->ids.n - from < BLOCK ? part->ids.n - from : BLOCK;
        for (Py_ssize_t i = 0; i < n; i++)
            if (!take(self, &part->ids, from + i, &id[i]))
                return "an id is out of bounds";
        for (Py_ssize_t i = 0; !wrong && i < n; i++)
            wrong = put(self, &id[i], rows[from + i], opens[from + i], size);
    }
    return wrong;
}

/* The bytes of the long ids. */
static uint64_t bytes_of_long(const Ids *ids)
{
    uint64_t n = 0;

    for (Py_ssize_t i = 0; i < ids->n; i++) {
        const int64_t begin = offset(ids, i), end = offset(ids, i + 1);
        n += begin >= 0 && begin <= end && end <= ids->text.len && end - begin > SHORT ? (uint64_t)(end - begin) : 0;
    }
    return n;
}

/* Takes memory for the registrations of all parts, with 3 entries for 2 of them; the bytes of the long ids, or -1. */
static int64_t allocate(Windows *self, const Part *parts, Py_ssize_t n_parts)
{
    uint64_t n = 0, size = 0, room;

    for (Py_ssize_t i = 0; i < n_parts; i++) {
        n += (uint64_t)parts[i].ids.n;
        size += bytes_of_long(&parts[i].ids);
    }
    if (n > INT32_MAX || size > PY_SSIZE_T_MAX) {
        PyErr_SetString(PyExc_ValueError, "parts: too many registrations");
        return -1;
    }
    self->capacity = n + n / 2 + 1;
    room = (self->capacity + MAX_REACH) * sizeof(Entry);
    self->memory = PyMem_RawCalloc(room + PAGE, 1);
    self->texts = PyMem_RawMalloc(size + 1);
    if (!self->memory || !self->texts) {
        PyErr_NoMemory();
        return -1;
    }
    self->entries = (Entry *)(((uintptr_t)self->memory + PAGE - 1) / PAGE * PAGE);
#if defined(MADV_HUGEPAGE)
    if (room >= LARGE)
        madvise(self->entries, room / PAGE * PAGE, MADV_HUGEPAGE);  /* refused or not: lookups find pages sooner */
#endif
    return (int64_t)size;
}

static int fill(Windows *self, const Part *parts, Py_ssize_t n_parts)
{
    const int64_t size = allocate(self, parts, n_parts);
    const char *wrong = NULL;

    if (size < 0)
        return -1;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; !wrong && i < n_parts; i++)
        wrong = put_part(self, &parts[i], (uint64_t)size);
    Py_END_ALLOW_THREADS
    if (wrong)
        PyErr_Format(PyExc_ValueError, "parts: %s", wrong);
    return wrong ? -1 : 0;
}

static PyObject *windows_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Windows *self = (Windows *)type->tp_alloc(type, 0);     /* zeroed */
    PyObject *given;
    const char *key;
    Py_ssize_t length, n = 0;
    Part *parts = NULL;
    int status = -1;

    if (!self)
        return NULL;
    (void)kwargs;
    if (PyArg_ParseTuple(args, "y#O!", &key, &length, &PyTuple_Type, &given)) {
        if (length != sizeof self->keys)
            PyErr_Format(PyExc_ValueError, "key: not %zd bytes", sizeof self->keys);
        else if (!(parts = PyMem_Calloc(PyTuple_GET_SIZE(given) + 1, sizeof *parts)))
            PyErr_NoMemory();
        else {
            memcpy(self->keys, key, sizeof self->keys);
            for (status = 0; status == 0 && n < PyTuple_GET_SIZE(given); n++)
                status = hold_part(PyTuple_GET_ITEM(given, n), &parts[n]);
            if (status == 0)
                status = fill(self, parts, n);
        }
    }
    while (n > 0)
        let_go_of_part(&parts[--n]);
    PyMem_Free(parts);
    if (status == 0)
        return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

static void windows_dealloc(Windows *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyMem_RawFree(self->memory);
    PyMem_RawFree(self->texts);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- the module ---- */

static PyMethodDef windows_methods[] = {
    {"inside", (PyCFunction)(void (*)(void))windows_inside, METH_FASTCALL,
     "inside(offsets, text, started, window, places, rows): write the places (int32) of the listens that start in the "
     "window of their id, of this length, and of those whose id is not there, with the row (int32) or -1; how many."},
    {"rows", (PyCFunction)(void (*)(void))windows_rows, METH_FASTCALL,
     "rows(offsets, text, places, rows): write the row of the id at each place, or -1; both int32."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot windows_slots[] = {
    {Py_tp_doc, "Windows(key, parts): parts are tuples of offsets, text, rows and opens, with distinct ids. ValueError if "
                "not whole."},
    {Py_tp_new, windows_new},
    {Py_tp_dealloc, windows_dealloc},
    {Py_tp_methods, windows_methods},
    {0, NULL},
};

static PyType_Spec windows_spec = {
    .name = "firstspin.data.labels._windows.Windows",
    .basicsize = sizeof(Windows),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = windows_slots,
};

static int load(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &windows_spec, NULL);
    int status = type ? PyModule_AddObjectRef(module, "Windows", type) : -1;

    Py_XDECREF(type);
    return status;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, load},
    {0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_windows",
    .m_doc = "Label windows in C.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__windows(void)
{
    return PyModuleDef_Init(&module);
}
