/* `weighed_in_python` of scoring.py in C: what listens add to the scores, to the last bit the same.
 *
 * A request has up to 200 listens; counting them in Python takes longer than all the rest of an answer.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SHORT 16    /* characters of the ids in the table; others are looked up in the dict */
#define FEW 64      /* up to this many genres are counted on the stack */

typedef struct {
    uint64_t head, tail;    /* of a short id: its characters, some of them in both */
    uint32_t n, genre;      /* 1 more than the number of characters, 0 in an empty entry */
} Entry;

typedef struct {
    double count;
    char is_heard, is_picked;
} Genre;

typedef struct {
    PyObject_HEAD
    PyObject *stations;     /* dict: id -> position of the genre */
    PyObject *places;       /* dict: genre -> position */
    PyObject *find;         /* the genre that a pick spells, or None */
    PyTypeObject *listen;
    Py_ssize_t station_id, seconds, skipped;    /* offsets in a listen */
    Entry *table;
    int shift;              /* 64 - log2 of the table's size */
    Py_ssize_t k;
    double *ratios;
    double weight, strength, saturation, picked, skip;
} Moves;

/* The key of a short id in ASCII; 0 for another text. */
static int pack(PyObject *text, Entry *key)
{
    const unsigned char *at;
    Py_ssize_t n;
    uint32_t first, last;

    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text) || (n = PyUnicode_GET_LENGTH(text)) > SHORT)
        return 0;
    at = PyUnicode_1BYTE_DATA(text);
    key->n = (uint32_t)n + 1;
    key->head = key->tail = 0;
    if (n >= 8) {
        memcpy(&key->head, at, 8);
        memcpy(&key->tail, at + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&first, at, 4);
        memcpy(&last, at + n - 4, 4);
        key->head = first | (uint64_t)last << 32;
    } else if (n)
        key->head = at[0] | (uint64_t)at[n / 2] << 8 | (uint64_t)at[n - 1] << 16;
    return 1;
}

/* The entry of a key, or the empty one where it would be. */
static Entry *find(const Moves *self, const Entry *key)
{
    const size_t last = ((size_t)1 << (64 - self->shift)) - 1;
    size_t at = ((key->head ^ (key->tail << 29 | key->tail >> 35)) * 0x9E3779B97F4A7C15u) >> self->shift;

    while (self->table[at].n &&
           (self->table[at].head != key->head || self->table[at].tail != key->tail || self->table[at].n != key->n))
        at = (at + 1) & last;
    return self->table + at;
}

/* The position of a station's genre; -1 where the station is unknown, -2 after an error. */
static Py_ssize_t genre_of(const Moves *self, PyObject *station_id)
{
    Entry key;
    PyObject *genre;

    if (pack(station_id, &key)) {
        const Entry *entry = find(self, &key);
        return entry->n ? (Py_ssize_t)entry->genre : -1;
    }
    genre = PyDict_GetItemWithError(self->stations, station_id);
    return genre ? PyLong_AsSsize_t(genre) : PyErr_Occurred() ? -2 : -1;
}

static PyObject *member(PyObject *listen, Py_ssize_t offset)
{
    PyObject *value = *(PyObject **)((char *)listen + offset);
    return value ? value : Py_None;
}

/* What a listen counts before its genre is known to be picked; NaN after an error. */
static double counted(const Moves *self, PyObject *listen)
{
    PyObject *seconds = member(listen, self->seconds), *skipped = member(listen, self->skipped);
    const int is_skipped = skipped == Py_False ? 0 : PyObject_IsTrue(skipped);
    double length = 0;

    if (is_skipped < 0)
        return NAN;
    if (is_skipped)
        return -self->skip;
    if (seconds != Py_None) {
        length = PyFloat_CheckExact(seconds) ? PyFloat_AS_DOUBLE(seconds) : PyFloat_AsDouble(seconds);
        if (length == -1 && PyErr_Occurred())
            return NAN;
    }
    return 1 - exp(-length / self->saturation);
}

/* Counts the listens by genre; the number of those to a known station, -1 after an error. */
static Py_ssize_t tally(const Moves *self, PyObject *listens, Genre *genres, double *total)
{
    Py_ssize_t known = 0;
    double sum = 0;

    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(listens); i++) {
        PyObject *listen = PyTuple_GET_ITEM(listens, i);
        Py_ssize_t genre;
        double count;

        if (Py_TYPE(listen) != self->listen) {
            PyErr_SetString(PyExc_TypeError, "listens: not of the type Listen");
            return -1;
        }
        genre = genre_of(self, member(listen, self->station_id));
        if (genre == -1)
            continue;
        count = genre < 0 ? NAN : counted(self, listen);
        if (isnan(count) && PyErr_Occurred())
            return -1;
        if (genres[genre].is_picked)
            count *= self->picked;
        genres[genre].count += count;
        genres[genre].is_heard = 1;
        sum += fabs(count);
        known++;
    }
    *total = sum;
    return known;
}

/* Marks the genres picked; -1 after an error. */
static int mark(const Moves *self, PyObject *picks, Genre *genres)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(picks); i++) {
        PyObject *place = PyDict_GetItemWithError(self->places, PyTuple_GET_ITEM(picks, i));
        if (!place && !PyErr_Occurred()) {
            PyObject *name = PyObject_CallOneArg(self->find, PyTuple_GET_ITEM(picks, i));
            place = name ? PyDict_GetItemWithError(self->places, name) : NULL;
            Py_XDECREF(name);
        }
        if (place)
            genres[PyLong_AsSsize_t(place)].is_picked = 1;
        else if (PyErr_Occurred())
            return -1;
    }
    return 0;
}

/* (k,) float64 as bytes: the rows of the genres that were heard, in their order. */
static PyObject *added(const Moves *self, const Genre *genres, double total)
{
    const double scale = self->weight / (1 + total / self->strength);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, self->k * sizeof(double));
    double *moves = bytes ? (double *)PyBytes_AS_STRING(bytes) : NULL;
    int is_first = 1;

    for (Py_ssize_t h = 0; moves && h < self->k; h++) {
        const double factor = scale * genres[h].count, *ratios = self->ratios + h * self->k;
        if (!genres[h].is_heard)
            continue;
        for (Py_ssize_t g = 0; g < self->k; g++)
            moves[g] = is_first ? factor * ratios[g] : moves[g] + factor * ratios[g];
        is_first = 0;
    }
    return bytes;
}

static PyObject *moves_of(Moves *self, PyObject *const *args, Py_ssize_t n_args)
{
    Genre few[FEW], *genres;
    Py_ssize_t known = -1;
    PyObject *moves = NULL;
    double total = 0;

    if (n_args != 2 || !PyTuple_CheckExact(args[0]) || !PyTuple_CheckExact(args[1]))
        return PyErr_Format(PyExc_TypeError, "of takes a tuple of listens and one of picks");
    genres = self->k > FEW ? PyMem_Malloc(self->k * sizeof *genres) : few;
    if (!genres)
        return PyErr_NoMemory();
    memset(genres, 0, self->k * sizeof *genres);
    if (self->picked == 1 || mark(self, args[1], genres) == 0)
        known = tally(self, args[0], genres, &total);
    if (known >= 0)
        moves = total && self->weight ? added(self, genres, total) : Py_NewRef(Py_None);
    if (genres != few)
        PyMem_Free(genres);
    return moves ? Py_BuildValue("nN", known, moves) : NULL;
}

/* ---- construction ---- */

/* The offset of an attribute in the instances of a type with slots; -1 after an error. */
static Py_ssize_t offset(PyTypeObject *type, const char *name)
{
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)type, name);
    Py_ssize_t found = -1;

    if (descriptor && Py_IS_TYPE(descriptor, &PyMemberDescr_Type) &&
        ((PyMemberDescrObject *)descriptor)->d_member->type == T_OBJECT_EX)
        found = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    else if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "%s is no slot of the type", name);
    Py_XDECREF(descriptor);
    return found;
}

static int copy_ratios(Moves *self, PyObject *ratios)
{
    Py_buffer view;
    int status = -1;

    if (PyObject_GetBuffer(ratios, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return -1;
    if (view.ndim != 2 || view.shape[0] != view.shape[1] || !view.format || strcmp(view.format, "d"))
        PyErr_SetString(PyExc_ValueError, "ratios: not an array (k, k) of float64");
    else if (!(self->ratios = PyMem_Malloc(view.len ? view.len : 1)))
        PyErr_NoMemory();
    else {
        self->k = view.shape[0];
        memcpy(self->ratios, view.buf, view.len);
        status = 0;
    }
    PyBuffer_Release(&view);
    return status;
}

/* Whether the values of a dict are positions of genres; -1 with an error where not. */
static int are_places(const Moves *self, PyObject *places)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (PyDict_Next(places, &at, &key, &value)) {
        const Py_ssize_t place = PyLong_AsSsize_t(value);
        if (place < 0 || place >= self->k) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "not the position of a genre");
            return -1;
        }
    }
    return 0;
}

/* The table of the short ids: at most half of its entries are used. */
static int fill(Moves *self)
{
    PyObject *station_id, *value;
    Py_ssize_t at = 0;
    int bits = 4;

    while (((Py_ssize_t)1 << bits) < 2 * PyDict_GET_SIZE(self->stations))
        bits++;
    self->shift = 64 - bits;
    self->table = PyMem_Calloc((size_t)1 << bits, sizeof *self->table);
    if (!self->table) {
        PyErr_NoMemory();
        return -1;
    }
    while (PyDict_Next(self->stations, &at, &station_id, &value)) {
        Entry entry = {.genre = (uint32_t)PyLong_AsSsize_t(value)};
        if (pack(station_id, &entry))
            *find(self, &entry) = entry;
    }
    return 0;
}

static PyObject *moves_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *listen, *stations, *places, *find, *ratios;
    Moves *self = (Moves *)type->tp_alloc(type, 0);     /* zeroed: whatever is not yet held, dealloc leaves alone */

    if (!self)
        return NULL;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O!O!O!OOddddd", &PyType_Type, &listen, &PyDict_Type, &stations, &PyDict_Type, &places,
                          &find, &ratios, &self->weight, &self->strength, &self->saturation, &self->picked,
                          &self->skip) ||
        !(self->stations = PyDict_Copy(stations)) || !(self->places = PyDict_Copy(places)) ||
        copy_ratios(self, ratios) < 0 || are_places(self, self->stations) < 0 ||
        are_places(self, self->places) < 0 || fill(self) < 0)
        goto fail;
    self->find = Py_NewRef(find);
    self->listen = (PyTypeObject *)Py_NewRef(listen);
    if ((self->station_id = offset(self->listen, "station_id")) < 0 ||
        (self->seconds = offset(self->listen, "seconds")) < 0 || (self->skipped = offset(self->listen, "skipped")) < 0)
        goto fail;
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static void moves_dealloc(Moves *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->stations);
    Py_XDECREF(self->places);
    Py_XDECREF(self->find);
    Py_XDECREF(self->listen);
    PyMem_Free(self->table);
    PyMem_Free(self->ratios);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef moves_methods[] = {
    {"of", (PyCFunction)(void (*)(void))moves_of, METH_FASTCALL,
     "of(listens, picks): the number of listens to known stations, and (k,) float64 as bytes, or None."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot moves_slots[] = {
    {Py_tp_doc, "Moves(listen, stations, places, find, ratios, weight, strength, saturation, picked, skip): see Evidence."},
    {Py_tp_new, moves_new},
    {Py_tp_dealloc, moves_dealloc},
    {Py_tp_methods, moves_methods},
    {0, NULL},
};

static PyType_Spec moves_spec = {
    .name = "firstspin.models.evidence._moves.Moves",
    .basicsize = sizeof(Moves),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = moves_slots,
};

static int load(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &moves_spec, NULL);
    int status = type ? PyModule_AddObjectRef(module, "Moves", type) : -1;

    Py_XDECREF(type);
    return status;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, load},
    {0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_moves",
    .m_doc = "Listens as evidence in C.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__moves(void)
{
    return PyModuleDef_Init(&module);
}
