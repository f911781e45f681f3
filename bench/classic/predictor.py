"""The classic way to serve a LightGBM model: a flask application that calls `predict` for every request.

The model folder holds `model.txt` and may hold `genres.json` (the classes' names), `columns.json` (the columns' names,
where the model text has none) and `content.json` (for a genre, what is added to the answer of which it is the first).
"""

import json
import math
import os
from functools import cache
from io import StringIO
from pathlib import Path

import flask
import lightgbm
import numpy as np
import pandas as pd

MODEL = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")) / "model"

app = flask.Flask(__name__)


class Model:
    def __init__(self, folder):
        self.booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
        self.columns = [named(column) for column in read(folder / "columns.json", self.booster.feature_name())]
        classes = self.booster.num_model_per_iteration()
        self.genres = read(folder / "genres.json", [str(k) for k in range(classes)])
        self.content = read(folder / "content.json", {})

    def probabilities(self, rows):
        return self.booster.predict(np.asarray(rows, dtype=float), num_threads=1)


def read(path, otherwise):
    return json.loads(path.read_text()) if path.exists() else otherwise


@cache
def model():
    """Loaded once a worker, when it is first asked."""
    return Model(MODEL)


def encoded(registration, columns):
    """A registration as a row of numbers, by the columns' names."""
    age = registration.get("age")
    values = {"age": math.nan if age is None else age, "age_missing": float(age is None)}
    for question in ("gender", "country"):
        word = registration.get(question)
        column = f"{question}_missing" if word is None else named(f"{question}={word.lower()}")
        values[column if column in columns else f"{question}=other"] = 1.0
    picks = [genre for genre in dict.fromkeys(registration.get("genres", ())) if named(f"picked={genre}") in columns]
    for position, genre in enumerate(picks, start=1):
        values[named(f"picked={genre}")] = 1.0
        values[named(f"rank={genre}")] = 1.0 / position
    values["picks"] = len(picks)
    return [values.get(column, 0.0) for column in columns]


def named(column):
    """LightGBM keeps no spaces in the names of columns."""
    return column.replace(" ", "_")


def answer(probabilities):
    order = np.argsort(-probabilities, kind="stable")
    genres = [{"genre": model().genres[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {"genres": genres, **model().content.get(genres[0]["genre"], {})}


@app.get("/ping")
def ping():
    return flask.Response("\n", 200 if model() else 404, mimetype="application/json")


@app.post("/invocations")
def invocations():
    if flask.request.content_type == "application/json":
        given = flask.request.get_json()
        rows = [encoded(one, model().columns) for one in given.get("instances", [given])]
        answers = [answer(row) for row in model().probabilities(rows)]
        return flask.jsonify({"predictions": answers} if "instances" in given else answers[0])
    if flask.request.content_type == "text/csv":
        table = pd.read_csv(StringIO(flask.request.data.decode()), header=None)
        best = model().probabilities(table).argmax(axis=1)
        out = pd.DataFrame({"genre": [model().genres[k] for k in best]}).to_csv(header=False, index=False)
        return flask.Response(out, 200, mimetype="text/csv")
    return flask.Response("This predictor takes JSON and CSV", 415, mimetype="text/plain")
