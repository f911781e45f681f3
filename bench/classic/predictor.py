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
        self.columns = read(folder / "columns.json", self.booster.feature_name())
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
    values = {"age": registration.get("age"), "picks": len(registration.get("genres", ()))}
    for question in ("age", "gender", "country", "genres"):
        values[f"{question} missing"] = float(not registration.get(question))
    for question in ("gender", "country"):
        answer = f"{question}={registration.get(question)}"
        values[answer if answer in columns else f"{question}=other"] = 1.0
    for position, genre in enumerate(registration.get("genres", ()), start=1):
        values[f"picked={genre}"] = 1.0
        values[f"rank={genre}"] = 1.0 / position
    values = {name.replace(" ", "_"): math.nan if value is None else value for name, value in values.items()}
    return [values.get(name.replace(" ", "_"), 0.0) for name in columns]


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
