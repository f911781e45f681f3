"""What most people would write: FastAPI, pydantic, `lgb.predict`. Same questions, model and size of answer as ours."""

import json
import math
import os
from pathlib import Path
from typing import Annotated

import lightgbm
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

MODEL = Path(os.environ["MODEL_FOLDER"])
booster = lightgbm.Booster(model_file=str(MODEL / "model.txt"))
columns = json.loads((MODEL / "columns.json").read_text())
index = {name: i for i, name in enumerate(columns)}
genres = json.loads((MODEL / "genres.json").read_text())
content = json.loads((MODEL / "content.json").read_text())
app = FastAPI()


class Registration(BaseModel):
    """What a newcomer told us."""

    model_config = ConfigDict(extra="forbid", strict=True)
    age: Annotated[int, Field(ge=0, le=120)] | None = None
    gender: Annotated[str, Field(max_length=200)] | None = None
    country: Annotated[str, Field(max_length=200)] | None = None
    genres: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)] = []


def encoded(registration: Registration) -> list[float]:
    row = [0.0] * len(columns)
    row[index["age"]] = math.nan if registration.age is None else registration.age
    for question, word in (("gender", registration.gender), ("country", registration.country)):
        name = f"{question} missing" if word is None else f"{question}={word.lower()}"
        row[index.get(name, index[f"{question}=other"])] = 1.0
    picks = [genre for genre in dict.fromkeys(registration.genres) if f"picked={genre}" in index]
    for position, genre in enumerate(picks, start=1):
        row[index[f"picked={genre}"]] = 1.0
        row[index[f"rank={genre}"]] = 1.0 / position
    row[index["picks"]] = len(picks)
    return row


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {}


@app.post("/invocations")
async def invocations(registration: Registration) -> dict[str, object]:
    probabilities = booster.predict(np.array([encoded(registration)]), num_threads=1)[0]
    order = np.argsort(-probabilities, kind="stable")[:5]
    ranked = [{"genre": genres[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {"model": "3f2a9c1b", "source": "model", "genres": ranked, **content[genres[order[0]]]}
