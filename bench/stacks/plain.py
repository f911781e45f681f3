"""The model behind every stack but ours, as most people would write it: `lgb.predict` on one row, content by genre."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np

MODEL = Path(os.environ["MODEL_FOLDER"])
booster = lightgbm.Booster(model_file=str(MODEL / "model.txt"))
columns = json.loads((MODEL / "columns.json").read_text())
index = {name: i for i, name in enumerate(columns)}
genres = json.loads((MODEL / "genres.json").read_text())
content = json.loads((MODEL / "content.json").read_text())


def encoded(age: int | None, gender: str | None, country: str | None, picked: Sequence[str]) -> list[float]:
    row = [0.0] * len(columns)
    row[index["age"]] = math.nan if age is None else age
    for question, word in (("gender", gender), ("country", country)):
        name = f"{question} missing" if word is None else f"{question}={word.lower()}"
        place = index.get(name, index.get(f"{question}=other"))
        if place is not None:  # training leaves out columns that never vary
            row[place] = 1.0
    picks = [genre for genre in dict.fromkeys(picked) if f"rank={genre}" in index]
    for position, genre in enumerate(picks, start=1):
        if f"picked={genre}" in index:
            row[index[f"picked={genre}"]] = 1.0
        row[index[f"rank={genre}"]] = 1.0 / position
    row[index["picks"]] = len(picks)
    return row


def answer(age: int | None, gender: str | None, country: str | None, picked: Sequence[str]) -> dict[str, object]:
    """An answer of the size of ours."""
    probabilities = booster.predict(np.array([encoded(age, gender, country, picked)]), num_threads=1)[0]
    order = np.argsort(-probabilities, kind="stable")[:5]
    ranked = [{"genre": genres[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {"model": "3f2a9c1b", "source": "model", "genres": ranked, **content[genres[order[0]]]}
