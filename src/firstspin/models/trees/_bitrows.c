/* The scorer of bitrows.py in C: the same tables, the same additions in the same order, the same bits.
 *
 * A `Scorer` checks every shape and index of its tables once. The small tables are copied, so that they can't change
 * after the check; the two large ones (masks and leaves, usually memory maps) may hold any values: a mask can only
 * select a leaf of its own tree, because the guard bit ends every search for the lowest bit.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define TILE 512      /* trees per tile of a single row: their masks, 2 or 4 KiB, stay in the L1 cache */
#define SHARED 256    /* trees per tile of many rows: all its masks and leaves stay in the L2 cache, */
#define CHUNK 512     /* for so many rows */
#define ALONE 8       /* up to this many rows are scored without releasing the GIL */

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define LOWEST_32(mask) __builtin_ctz(mask)
#define LOWEST_64(mask) __builtin_ctzll(mask)
#else
#define INLINE static inline
#define LOWEST_32(mask) lowest(mask)
#define LOWEST_64(mask) lowest(mask)

static int lowest(uint64_t mask)
{
    int bit = 0;
    for (; !(mask & 1); mask >>= 1)
        bit++;
    return bit;
}
#endif

typedef struct {
    PyObject_HEAD
    Py_buffer masks;      /* (r, t) uint32 or uint64 */
    Py_buffer leaves;     /* (rounds, k, m) float64, t = rounds * k */
    int64_t *starts;      /* (c + 1,) where the cuts of each column start */
    double *cuts;
    int32_t *rows;        /* each column's intervals, then NaN: a row of masks, or -1 where nothing is masked */
    Py_ssize_t n_columns, n_trees, n_scores, n_leaves;
} Scorer;

/* ---- scoring ---- */

/* The interval of the value: the number of cuts below it; NaN has the last one. */
static int64_t interval(const double *cuts, int64_t n, double value)
{
    int64_t below = 0;

    if (value != value)
        return n + 1;
    while (n > 0) {
        int64_t half = (n + 1) / 2;
        below += cuts[below + half - 1] < value ? half : 0;
        n -= half;
    }
    return below;
}

/* The rows of masks that apply to one row of values, first their number. */
static void pick(const Scorer *self, const double *values, Py_ssize_t *picked)
{
    Py_ssize_t n = 0;

    for (Py_ssize_t column = 0; column < self->n_columns; column++) {
        int64_t start = self->starts[column];
        int64_t here = interval(self->cuts + start, self->starts[column + 1] - start, values[column]);
        int32_t row = self->rows[start + 2 * column + here];
        picked[1 + n] = row;
        n += row >= 0;
    }
    picked[0] = n;
}

/* The AND of the picked rows over a tile of `words` words of 32 bits; `masks` is the tile in row 0, rows are `row` apart. */
INLINE void and_rows(const uint32_t *masks, size_t row, const Py_ssize_t *picked, size_t words, uint32_t *open)
{
    Py_ssize_t r = 1;

    memset(open, 0xff, sizeof *open * words);
    for (; r + 7 <= picked[0]; r += 8) {
        const uint32_t *a = masks + row * picked[r], *b = masks + row * picked[r + 1];
        const uint32_t *c = masks + row * picked[r + 2], *d = masks + row * picked[r + 3];
        const uint32_t *e = masks + row * picked[r + 4], *f = masks + row * picked[r + 5];
        const uint32_t *g = masks + row * picked[r + 6], *h = masks + row * picked[r + 7];
        for (size_t i = 0; i < words; i++)
            open[i] &= a[i] & b[i] & c[i] & d[i] & e[i] & f[i] & g[i] & h[i];
    }
    for (; r + 3 <= picked[0]; r += 4) {
        const uint32_t *a = masks + row * picked[r], *b = masks + row * picked[r + 1];
        const uint32_t *c = masks + row * picked[r + 2], *d = masks + row * picked[r + 3];
        for (size_t i = 0; i < words; i++)
            open[i] &= a[i] & b[i] & c[i] & d[i];
    }
    for (; r <= picked[0]; r++) {
        const uint32_t *a = masks + row * picked[r];
        for (size_t i = 0; i < words; i++)
            open[i] &= a[i];
    }
}

/* Add the exit leaves to the scores, tree by tree. */
INLINE void add_leaves(const Scorer *self, const uint32_t *open, Py_ssize_t from, Py_ssize_t n, double *scores)
{
    const Py_ssize_t words = self->masks.itemsize / sizeof(uint32_t), step = self->n_leaves;
    const double *leaf = (const double *)self->leaves.buf + from * step;
    const uint64_t guard = (uint64_t)1 << (step - 1);

    for (Py_ssize_t i = 0, score = from % self->n_scores; i < n; score = 0) {
        Py_ssize_t end = self->n_scores - score < n - i ? i + self->n_scores - score : n;
        if (words == 1)
            for (; i < end; i++, leaf += step)
                scores[score++] += leaf[LOWEST_32(open[i] | (uint32_t)guard)];
        else
            for (; i < end; i++, leaf += step) {
                uint64_t mask;
                memcpy(&mask, open + 2 * i, sizeof mask);
                scores[score++] += leaf[LOWEST_64(mask | guard)];
            }
    }
}

/* Add the exit leaves of the trees [from, from + n) to the scores of one row; n is at most TILE. */
INLINE void add_tile(const Scorer *self, const Py_ssize_t *picked, Py_ssize_t from, Py_ssize_t n, double *scores)
{
    const Py_ssize_t words = self->masks.itemsize / sizeof(uint32_t);
    uint32_t open[2 * TILE];

    and_rows((const uint32_t *)self->masks.buf + words * from, words * self->n_trees, picked, words * n, open);
    add_leaves(self, open, from, n, scores);
}

typedef void (*AddTile)(const Scorer *, const Py_ssize_t *, Py_ssize_t, Py_ssize_t, double *);

static void add_tile_plain(const Scorer *self, const Py_ssize_t *picked, Py_ssize_t from, Py_ssize_t n, double *scores)
{
    add_tile(self, picked, from, n, scores);
}

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <immintrin.h>

__attribute__((target("avx2,bmi")))
static void add_tile_avx2(const Scorer *self, const Py_ssize_t *picked, Py_ssize_t from, Py_ssize_t n, double *scores)
{
    add_tile(self, picked, from, n, scores);
}

#define AVX512 __attribute__((target("avx512f,avx512vl,avx512vpopcntdq")))

/* Where the exit leaves of 16 trees lie, the first of them tree `i` of the tile, of masks with the guard bit set. */
AVX512 INLINE __m512i places_avx512(__m512i mask, int32_t i, int32_t step)
{
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i below = _mm512_andnot_si512(mask, _mm512_add_epi32(mask, _mm512_set1_epi32(-1)));
    __m512i trees = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));

    return _mm512_add_epi32(_mm512_mullo_epi32(trees, _mm512_set1_epi32(step)), _mm512_popcnt_epi32(below));
}

/* Add leaves[at[i]] of n trees, the first of which is of score `score`, each score in the order of its trees. */
INLINE void add_places(const double *leaves, const int32_t *at, Py_ssize_t n, Py_ssize_t score, Py_ssize_t k,
                       double *scores)
{
    Py_ssize_t first = 0;

    if (score == 0 && n % k == 0)   /* whole rounds: four sums at once, which wait for each other's loads no longer */
        for (; first + 3 < k; first += 4) {
            double a = scores[first], b = scores[first + 1], c = scores[first + 2], d = scores[first + 3];
            for (Py_ssize_t i = first; i < n; i += k) {
                a += leaves[at[i]];
                b += leaves[at[i + 1]];
                c += leaves[at[i + 2]];
                d += leaves[at[i + 3]];
            }
            scores[first] = a, scores[first + 1] = b, scores[first + 2] = c, scores[first + 3] = d;
        }
    for (; first < n && first < k; first++) {
        Py_ssize_t j = score + first < k ? score + first : score + first - k;
        double sum = scores[j];
        for (Py_ssize_t i = first; i < n; i += k)
            sum += leaves[at[i]];
        scores[j] = sum;
    }
}

/* The same as add_tile: masks of 32 bits stay in registers from the AND to the place of the lowest bit. */
AVX512 static void add_tile_avx512(const Scorer *self, const Py_ssize_t *picked, Py_ssize_t from, Py_ssize_t n,
                                   double *scores)
{
    const Py_ssize_t k = self->n_scores, t = self->n_trees;
    const int32_t step = (int32_t)self->n_leaves;
    const uint32_t *masks = (const uint32_t *)self->masks.buf + from;
    const __m512i guard = _mm512_set1_epi32((int32_t)((uint32_t)1 << (step - 1)));
    int32_t at[TILE];
    Py_ssize_t i = 0;

    if (self->masks.itemsize != sizeof *masks) {
        add_tile(self, picked, from, n, scores);
        return;
    }
    for (; i + 63 < n; i += 64) {
        __m512i a = _mm512_set1_epi32(-1), b = a, c = a, d = a;
        for (Py_ssize_t r = 1; r <= picked[0]; r++) {
            const uint32_t *row = masks + t * picked[r] + i;
            a = _mm512_and_si512(a, _mm512_loadu_si512(row));
            b = _mm512_and_si512(b, _mm512_loadu_si512(row + 16));
            c = _mm512_and_si512(c, _mm512_loadu_si512(row + 32));
            d = _mm512_and_si512(d, _mm512_loadu_si512(row + 48));
        }
        _mm512_storeu_si512(at + i, places_avx512(_mm512_or_si512(a, guard), (int32_t)i, step));
        _mm512_storeu_si512(at + i + 16, places_avx512(_mm512_or_si512(b, guard), (int32_t)i + 16, step));
        _mm512_storeu_si512(at + i + 32, places_avx512(_mm512_or_si512(c, guard), (int32_t)i + 32, step));
        _mm512_storeu_si512(at + i + 48, places_avx512(_mm512_or_si512(d, guard), (int32_t)i + 48, step));
    }
    for (; i < n; i += 16) {
        const __mmask16 there = n - i < 16 ? (__mmask16)((1 << (n - i)) - 1) : 0xffff;
        __m512i a = _mm512_set1_epi32(-1);
        for (Py_ssize_t r = 1; r <= picked[0]; r++)
            a = _mm512_and_si512(a, _mm512_maskz_loadu_epi32(there, masks + t * picked[r] + i));
        _mm512_mask_storeu_epi32(at + i, there, places_avx512(_mm512_or_si512(a, guard), (int32_t)i, step));
    }
    add_places((const double *)self->leaves.buf + from * step, at, n, from % k, k, scores);
}

static AddTile fastest(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vpopcntdq"))
        return add_tile_avx512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") ? add_tile_avx2 : add_tile_plain;
}
#else
static AddTile fastest(void)
{
    return add_tile_plain;
}
#endif

static AddTile add_tile_here = add_tile_plain;   /* chosen once, when the module is loaded */

/* Trees in a tile for n rows: whole rounds, where they fit. */
static Py_ssize_t tile_for(const Scorer *self, Py_ssize_t n)
{
    const Py_ssize_t most = n > ALONE ? SHARED : TILE, k = self->n_scores;

    return k < most ? most - most % k : most;
}

/* Add all trees to the scores (n, k) of n rows, at most CHUNK; what row i has picked begins at picked[i * width]. */
static void add_trees(const Scorer *self, const Py_ssize_t *picked, Py_ssize_t width, Py_ssize_t n, Py_ssize_t tile,
                      double *scores)
{
    for (Py_ssize_t from = 0; from < self->n_trees; from += tile) {
        Py_ssize_t trees = self->n_trees - from < tile ? self->n_trees - from : tile;
        for (Py_ssize_t i = 0; i < n; i++)
            add_tile_here(self, picked + i * width, from, trees, scores + i * self->n_scores);
    }
}

/* Scores (n, k) of rows (n, c); `picked` has room for CHUNK rows, c + 1 places each. */
static void score(const Scorer *self, const double *values, Py_ssize_t n, double *scores, Py_ssize_t *picked)
{
    const Py_ssize_t c = self->n_columns, k = self->n_scores, tile = tile_for(self, n);

    memset(scores, 0, sizeof(double) * n * k);
    for (Py_ssize_t first = 0; first < n; first += CHUNK) {
        Py_ssize_t rows = n - first < CHUNK ? n - first : CHUNK;
        for (Py_ssize_t i = 0; i < rows; i++)
            pick(self, values + (first + i) * c, picked + i * (c + 1));
        add_trees(self, picked, c + 1, rows, tile, scores + first * k);
    }
}

/* The same where the rows of masks are named: of row i, those from `named[offsets[i]]` on; at most `width` - 1. */
static void score_named(const Scorer *self, const int64_t *offsets, const int32_t *named, Py_ssize_t n, double *scores,
                        Py_ssize_t *picked, Py_ssize_t width)
{
    memset(scores, 0, sizeof(double) * n * self->n_scores);
    for (Py_ssize_t first = 0; first < n; first += CHUNK) {
        Py_ssize_t rows = n - first < CHUNK ? n - first : CHUNK;
        for (Py_ssize_t i = 0; i < rows; i++) {
            const int64_t begin = offsets[first + i], number = offsets[first + i + 1] - begin;
            picked[i * width] = number;
            for (int64_t j = 0; j < number; j++)
                picked[i * width + 1 + j] = named[begin + j];
        }
        add_trees(self, picked, width, rows, tile_for(self, n), scores + first * self->n_scores);
    }
}

/* ---- checks: no index leads out of an array ---- */

static int refuse(const char *name, const char *what)
{
    PyErr_Format(PyExc_ValueError, "%s: %s", name, what);
    return -1;
}

/* Hold the buffer of an aligned C-contiguous array of these dimensions, item sizes and kinds. */
static int hold(PyObject *array, Py_buffer *view, const char *name, int ndim, const char *kinds, int least, int most,
                int flags)
{
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return -1;
    if (view->ndim == ndim && view->format && strlen(view->format) == 1 && strchr(kinds, view->format[0]) &&
        (view->itemsize == least || view->itemsize == most) && (uintptr_t)view->buf % view->itemsize == 0)
        return 0;
    PyBuffer_Release(view);
    return refuse(name, "not an array of the right type, dimensions and alignment");
}

/* A copy of a one-dimensional array, or NULL with an exception. */
static void *copy(PyObject *array, const char *name, const char *kinds, int size, Py_ssize_t *n)
{
    Py_buffer view;
    void *mine;

    if (hold(array, &view, name, 1, kinds, size, size, 0) < 0)
        return NULL;
    *n = view.shape[0];
    mine = PyMem_Malloc(view.len);
    if (mine)
        memcpy(mine, view.buf, view.len);
    else
        PyErr_NoMemory();
    PyBuffer_Release(&view);
    return mine;
}

static int check(const Scorer *self, Py_ssize_t n_starts, Py_ssize_t n_cuts, Py_ssize_t n_rows)
{
    const Py_ssize_t *masks = self->masks.shape, *leaves = self->leaves.shape;

    if (n_starts < 2 || self->starts[0] != 0 || self->starts[n_starts - 1] != n_cuts)
        return refuse("starts", "must lead from 0 to the number of cuts");
    for (Py_ssize_t i = 1; i < n_starts; i++)
        if (self->starts[i] < self->starts[i - 1])
            return refuse("starts", "must not fall");
    if (n_rows != n_cuts + 2 * (n_starts - 1))
        return refuse("rows", "must be one an interval and one for NaN, a column");
    for (Py_ssize_t i = 0; i < n_rows; i++)
        if (self->rows[i] < -1 || self->rows[i] >= masks[0])
            return refuse("rows", "names a row that masks does not have");
    if (leaves[0] < 1 || leaves[1] < 1 || leaves[2] < 1 || leaves[2] > 8 * self->masks.itemsize)
        return refuse("leaves", "must be (rounds, scores, leaves), no more leaves than a mask has bits");
    if (masks[1] != leaves[0] * leaves[1])
        return refuse("masks", "must have a column a tree");
    return 0;
}

static void scorer_dealloc(Scorer *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyBuffer_Release(&self->masks);
    PyBuffer_Release(&self->leaves);
    PyMem_Free(self->starts);
    PyMem_Free(self->cuts);
    PyMem_Free(self->rows);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *scorer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"masks", "rows", "cuts", "starts", "leaves", NULL};
    PyObject *masks, *rows, *cuts, *starts, *leaves;
    Py_ssize_t n_rows, n_cuts, n_starts;
    Scorer *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOO", names, &masks, &rows, &cuts, &starts, &leaves))
        return NULL;
    self = (Scorer *)type->tp_alloc(type, 0);   /* zeroed: whatever is not yet held, dealloc leaves alone */
    if (!self)
        return NULL;
    if (hold(masks, &self->masks, "masks", 2, "ILQ", 4, 8, 0) < 0 ||
        hold(leaves, &self->leaves, "leaves", 3, "d", 8, 8, 0) < 0 ||
        !(self->rows = copy(rows, "rows", "il", 4, &n_rows)) ||
        !(self->cuts = copy(cuts, "cuts", "d", 8, &n_cuts)) ||
        !(self->starts = copy(starts, "starts", "lq", 8, &n_starts)) ||
        check(self, n_starts, n_cuts, n_rows) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->n_columns = n_starts - 1;
    self->n_trees = self->masks.shape[1];
    self->n_scores = self->leaves.shape[1];
    self->n_leaves = self->leaves.shape[2];
    return (PyObject *)self;
}

static int score_buffers(const Scorer *self, const Py_buffer *rows, const Py_buffer *out)
{
    const Py_ssize_t n = rows->shape[0];
    Py_ssize_t *picked;

    if (rows->shape[1] != self->n_columns)
        return refuse("rows", "must have the columns of the model");
    if (out->shape[0] != n || out->shape[1] != self->n_scores)
        return refuse("out", "must have a row a row and a column a score");
    picked = PyMem_RawMalloc(sizeof *picked * (n < CHUNK ? n : CHUNK) * (self->n_columns + 1));
    if (!picked) {
        PyErr_NoMemory();
        return -1;
    }
    if (n <= ALONE)
        score(self, rows->buf, n, out->buf, picked);
    else {
        Py_BEGIN_ALLOW_THREADS
        score(self, rows->buf, n, out->buf, picked);
        Py_END_ALLOW_THREADS
    }
    PyMem_RawFree(picked);
    return 0;
}

static PyObject *scorer_scores(Scorer *self, PyObject *const *args, Py_ssize_t n_args)
{
    Py_buffer rows, out;
    int status;

    if (n_args != 2)
        return PyErr_Format(PyExc_TypeError, "scores takes rows and out");
    if (hold(args[0], &rows, "rows", 2, "d", 8, 8, 0) < 0)
        return NULL;
    if (hold(args[1], &out, "out", 2, "d", 8, 8, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&rows);
        return NULL;
    }
    status = score_buffers(self, &rows, &out);
    PyBuffer_Release(&out);
    PyBuffer_Release(&rows);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The largest number of rows of masks of a row; -1 with an exception where an index leads out of `named` or `masks`. */
static Py_ssize_t check_named(const Py_buffer *masks, const Py_buffer *offsets, const Py_buffer *named)
{
    const int64_t *at = offsets->buf;
    const int32_t *rows = named->buf;
    const Py_ssize_t n = offsets->shape[0] - 1;
    Py_ssize_t most = 0;

    if (n < 0 || at[0] < 0 || at[n] > named->shape[0])
        return refuse("offsets", "must lie in named");
    for (Py_ssize_t i = 0; i < n; i++) {
        if (at[i + 1] < at[i])
            return refuse("offsets", "must not fall");
        most = at[i + 1] - at[i] > most ? at[i + 1] - at[i] : most;
    }
    for (int64_t i = at[0]; i < at[n]; i++)
        if (rows[i] < 0 || rows[i] >= masks->shape[0])
            return refuse("named", "names a row that masks does not have");
    return most;
}

static int score_named_buffers(const Scorer *self, const Py_buffer *masks, const Py_buffer *offsets,
                               const Py_buffer *named, const Py_buffer *out)
{
    const Py_ssize_t n = offsets->shape[0] - 1, most = check_named(masks, offsets, named);
    Scorer other = *self;   /* the same trees with other rows of masks */
    Py_ssize_t *picked;

    if (most < 0)
        return -1;
    if (masks->itemsize != self->masks.itemsize || masks->shape[1] != self->n_trees)
        return refuse("masks", "must have a column a tree, of the model's type");
    if (out->shape[0] != n || out->shape[1] != self->n_scores)
        return refuse("out", "must have a row a row and a column a score");
    picked = PyMem_RawMalloc(sizeof *picked * CHUNK * (most + 1));
    if (!picked) {
        PyErr_NoMemory();
        return -1;
    }
    other.masks = *masks;
    Py_BEGIN_ALLOW_THREADS
    score_named(&other, offsets->buf, named->buf, n, out->buf, picked, most + 1);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(picked);
    return 0;
}

static PyObject *scorer_scores_of(Scorer *self, PyObject *const *args, Py_ssize_t n_args)
{
    Py_buffer views[4] = {{0}};
    int status = -1;

    if (n_args != 4)
        return PyErr_Format(PyExc_TypeError, "scores_of takes masks, offsets, named and out");
    if (hold(args[0], &views[0], "masks", 2, "ILQ", 4, 8, 0) == 0 &&
        hold(args[1], &views[1], "offsets", 1, "lq", 8, 8, 0) == 0 &&
        hold(args[2], &views[2], "named", 1, "il", 4, 4, 0) == 0 &&
        hold(args[3], &views[3], "out", 2, "d", 8, 8, PyBUF_WRITABLE) == 0)
        status = score_named_buffers(self, &views[0], &views[1], &views[2], &views[3]);
    for (int i = 0; i < 4; i++)
        PyBuffer_Release(&views[i]);   /* what is not held is left alone */
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- the module ---- */

static PyMethodDef scorer_methods[] = {
    {"scores", (PyCFunction)(void (*)(void))scorer_scores, METH_FASTCALL,
     "scores(rows, out): write the raw scores (n, k) of rows (n, c), both float64 and C-contiguous, into out."},
    {"scores_of", (PyCFunction)(void (*)(void))scorer_scores_of, METH_FASTCALL,
     "scores_of(masks, offsets, named, out): the same of n rows that are named rows of other masks (r, t): those of row i "
     "are named[offsets[i]:offsets[i + 1]]."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scorer_slots[] = {
    {Py_tp_doc, "Scorer(masks, rows, cuts, starts, leaves): the tables of bitrows.tables, checked. ValueError if not whole."},
    {Py_tp_new, scorer_new},
    {Py_tp_dealloc, scorer_dealloc},
    {Py_tp_methods, scorer_methods},
    {0, NULL},
};

static PyType_Spec scorer_spec = {
    .name = "firstspin.models.trees._bitrows.Scorer",
    .basicsize = sizeof(Scorer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scorer_slots,
};

static int load(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &scorer_spec, NULL);
    int status = type ? PyModule_AddObjectRef(module, "Scorer", type) : -1;

    Py_XDECREF(type);
    add_tile_here = fastest();
    return status;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, load},
    {0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_bitrows",
    .m_doc = "Bit rows in C.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__bitrows(void)
{
    return PyModuleDef_Init(&module);
}
