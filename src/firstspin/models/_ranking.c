/* `ranked_by_numpy` of predictor.py in C: scores -> genres, best first, each with its probability to six decimals.
 *
 * For the few scores of one registration, the calls into numpy take longer than the computation.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FEW 64   /* up to this many scores are sorted on the stack */

typedef struct {
    double score, grown;   /* grown: e to the score less the best one */
    Py_ssize_t place;
} Scored;

/* Higher scores first; equal ones keep their order. */
static int before(const void *left, const void *right)
{
    const Scored *a = left, *b = right;

    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->place < b->place ? -1 : 1;
}

/* The first `most` of k scores come first, in order; all of them where k is large. */
static void sort(Scored *scored, Py_ssize_t k, Py_ssize_t most)
{
    if (k > FEW) {
        qsort(scored, k, sizeof *scored, before);
        return;
    }
    for (Py_ssize_t i = 1; i < k; i++) {
        Scored here = scored[i];
        Py_ssize_t j = i < most ? i : most;
        if (j < i && before(&here, scored + j - 1) > 0)
            continue;
        if (j < i)
            j--;   /* the last of the first ones is dropped: nothing reads it again */
        for (; j > 0 && before(&here, scored + j - 1) < 0; j--)
            scored[j] = scored[j - 1];
        scored[j] = here;
    }
}

/* Fill `scored` with a row of scores, the first `most` in order; the sum of the grown ones, or -1 with an exception. */
static double order(const double *scores, Py_ssize_t k, Py_ssize_t most, Scored *scored)
{
    double best = k ? scores[0] : 0, total = 0;

    for (Py_ssize_t i = 0; i < k; i++) {
        if (!isfinite(scores[i])) {
            PyErr_SetString(PyExc_ValueError, "scores: not finite");
            return -1;
        }
        best = scores[i] > best ? scores[i] : best;
    }
    for (Py_ssize_t i = 0; i < k; i++) {
        scored[i].score = scores[i];
        scored[i].grown = exp(scores[i] - best);
        scored[i].place = i;
        total += scored[i].grown;
    }
    sort(scored, k, most);
    return total;
}

static double probability(const Scored *scored, double total)
{
    return rint(scored->grown / total * 1e6) / 1e6;
}

/* (genres, probabilities) of one row of scores; `scored` has room for k. */
static PyObject *rank(const double *scores, Py_ssize_t k, PyObject *genres, Scored *scored)
{
    const double total = order(scores, k, k, scored);
    PyObject *names, *values, *pair;

    if (total < 0)
        return NULL;
    names = PyTuple_New(k);
    values = PyTuple_New(k);
    pair = names && values ? PyTuple_Pack(2, names, values) : NULL;
    Py_XDECREF(names);
    Py_XDECREF(values);
    for (Py_ssize_t i = 0; pair && i < k; i++) {
        PyObject *value = PyFloat_FromDouble(probability(scored + i, total));
        if (!value) {
            Py_CLEAR(pair);
            break;
        }
        PyTuple_SET_ITEM(names, i, Py_NewRef(PyTuple_GET_ITEM(genres, scored[i].place)));
        PyTuple_SET_ITEM(values, i, value);
    }
    return pair;
}

static PyObject *rank_all(const Py_buffer *scores, PyObject *genres)
{
    const Py_ssize_t n = scores->shape[0], k = scores->shape[1];
    Scored few[FEW], *scored = k > FEW ? PyMem_Malloc(k * sizeof *scored) : few;
    PyObject *rankings = scored ? PyList_New(n) : PyErr_NoMemory();

    for (Py_ssize_t i = 0; rankings && i < n; i++) {
        PyObject *pair = rank((const double *)scores->buf + i * k, k, genres, scored);
        if (pair)
            PyList_SET_ITEM(rankings, i, pair);
        else
            Py_CLEAR(rankings);
    }
    if (scored != few)
        PyMem_Free(scored);
    return rankings;
}

/* Hold the buffer of an aligned C-contiguous array (n, k) whose items have this format and size. */
static int hold(PyObject *array, Py_buffer *view, const char *format, Py_ssize_t size, int flags, const char *problem)
{
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0)
        return -1;
    if (view->ndim == 2 && view->format && !strcmp(view->format, format) && view->itemsize == size &&
        (uintptr_t)view->buf % size == 0)
        return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, problem);
    return -1;
}

static int hold_scores(PyObject *array, Py_buffer *scores)
{
    return hold(array, scores, "d", sizeof(double), 0, "scores: not an aligned array (n, k) of float64");
}

static PyObject *ranked(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Py_buffer scores;
    PyObject *rankings = NULL;

    (void)module;
    if (n_args != 2 || !PyTuple_CheckExact(args[1]))
        return PyErr_Format(PyExc_TypeError, "ranked takes scores and a tuple of genres");
    if (hold_scores(args[0], &scores) < 0)
        return NULL;
    if (scores.shape[1] != PyTuple_GET_SIZE(args[1]))
        PyErr_SetString(PyExc_ValueError, "scores: must have a column a genre");
    else
        rankings = rank_all(&scores, args[1]);
    PyBuffer_Release(&scores);
    return rankings;
}

/* Write the first places of each row of scores, and their probabilities; -1 with an exception. */
static int rank_into(const Py_buffer *scores, const Py_buffer *places, const Py_buffer *values)
{
    const Py_ssize_t n = scores->shape[0], k = scores->shape[1], most = places->shape[1];
    Scored few[FEW], *scored = k > FEW ? PyMem_Malloc(k * sizeof *scored) : few;
    int32_t *place = places->buf;
    double *value = values->buf, total = 0;

    if (!scored) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n && total >= 0; i++) {
        total = order((const double *)scores->buf + i * k, k, most, scored);
        for (Py_ssize_t j = 0; total >= 0 && j < most; j++) {
            *place++ = (int32_t)scored[j].place;
            *value++ = probability(scored + j, total);
        }
    }
    if (scored != few)
        PyMem_Free(scored);
    return total < 0 ? -1 : 0;
}

static PyObject *ranked_into(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Py_buffer scores, places, values;
    int status = -1;

    (void)module;
    if (n_args != 3)
        return PyErr_Format(PyExc_TypeError, "ranked_into takes scores, places and probabilities");
    if (hold_scores(args[0], &scores) < 0)
        return NULL;
    if (hold(args[1], &places, "i", sizeof(int32_t), PyBUF_WRITABLE, "places: not an aligned array of int32") == 0) {
        if (hold(args[2], &values, "d", sizeof(double), PyBUF_WRITABLE, "probabilities: not an array of float64") == 0) {
            if (places.shape[0] != scores.shape[0] || values.shape[0] != scores.shape[0] ||
                places.shape[1] != values.shape[1] || places.shape[1] < 1 || places.shape[1] > scores.shape[1])
                PyErr_SetString(PyExc_ValueError, "places and probabilities: must have a row a row, 1 to k columns");
            else
                status = rank_into(&scores, &places, &values);
            PyBuffer_Release(&values);
        }
        PyBuffer_Release(&places);
    }
    PyBuffer_Release(&scores);
    if (status < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"ranked", (PyCFunction)(void (*)(void))ranked, METH_FASTCALL,
     "ranked(scores, genres): a list of (genres, probabilities), best first, one a row of scores (n, k)."},
    {"ranked_into", (PyCFunction)(void (*)(void))ranked_into, METH_FASTCALL,
     "ranked_into(scores, places, probabilities): write the columns of the first scores of each row, best first (int32), "
     "and their probabilities (float64)."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_ranking",
    .m_doc = "Scores to rankings in C.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__ranking(void)
{
    return PyModuleDef_Init(&module);
}
