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
    double score;
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

static void sort(Scored *scored, Py_ssize_t k)
{
    if (k > FEW) {
        qsort(scored, k, sizeof *scored, before);
        return;
    }
    for (Py_ssize_t i = 1; i < k; i++) {
        Scored here = scored[i];
        Py_ssize_t j = i;
        for (; j > 0 && before(&here, scored + j - 1) < 0; j--)
            scored[j] = scored[j - 1];
        scored[j] = here;
    }
}

/* (genres, probabilities) of one row of scores; `scored` has room for k. */
static PyObject *rank(const double *scores, Py_ssize_t k, PyObject *genres, Scored *scored)
{
    PyObject *names = PyTuple_New(k), *chances = PyTuple_New(k);
    PyObject *pair = names && chances ? PyTuple_Pack(2, names, chances) : NULL;
    double best = k ? scores[0] : 0, total = 0;

    Py_XDECREF(names);
    Py_XDECREF(chances);
    if (!pair)
        return NULL;
    for (Py_ssize_t i = 0; i < k; i++) {
        if (!isfinite(scores[i])) {
            Py_DECREF(pair);
            PyErr_SetString(PyExc_ValueError, "scores: not finite");
            return NULL;
        }
        best = scores[i] > best ? scores[i] : best;
    }
    for (Py_ssize_t i = 0; i < k; i++) {
        scored[i].score = scores[i];
        scored[i].place = i;
        total += exp(scores[i] - best);
    }
    sort(scored, k);
    for (Py_ssize_t i = 0; i < k; i++) {
        PyObject *chance = PyFloat_FromDouble(rint(exp(scored[i].score - best) / total * 1e6) / 1e6);
        if (!chance) {
            Py_DECREF(pair);
            return NULL;
        }
        PyTuple_SET_ITEM(names, i, Py_NewRef(PyTuple_GET_ITEM(genres, scored[i].place)));
        PyTuple_SET_ITEM(chances, i, chance);
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

static PyObject *ranked(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Py_buffer scores;
    PyObject *rankings = NULL;

    (void)module;
    if (n_args != 2 || !PyTuple_CheckExact(args[1]))
        return PyErr_Format(PyExc_TypeError, "ranked takes scores and a tuple of genres");
    if (PyObject_GetBuffer(args[0], &scores, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return NULL;
    if (scores.ndim != 2 || !scores.format || strcmp(scores.format, "d") || (uintptr_t)scores.buf % sizeof(double))
        PyErr_SetString(PyExc_ValueError, "scores: not an aligned array (n, k) of float64");
    else if (scores.shape[1] != PyTuple_GET_SIZE(args[1]))
        PyErr_SetString(PyExc_ValueError, "scores: must have a column a genre");
    else
        rankings = rank_all(&scores, args[1]);
    PyBuffer_Release(&scores);
    return rankings;
}

static PyMethodDef methods[] = {
    {"ranked", (PyCFunction)(void (*)(void))ranked, METH_FASTCALL,
     "ranked(scores, genres): a list of (genres, probabilities), best first, one a row of scores (n, k)."},
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
