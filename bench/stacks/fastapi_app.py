"""What most people would write: FastAPI, pydantic, `lgb.predict`. Same questions, model and size of answer as ours."""

from typing import Annotated

import plain
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

app = FastAPI()


class Registration(BaseModel):
    """What a newcomer told us."""

    model_config = ConfigDict(extra="forbid", strict=True)
    age: Annotated[int, Field(ge=0, le=120)] | None = None
    gender: Annotated[str, Field(max_length=200)] | None = None
    country: Annotated[str, Field(max_length=200)] | None = None
    genres: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)] = []


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {}


@app.post("/invocations")
async def invocations(told: Registration) -> dict[str, object]:
    return plain.answer(told.age, told.gender, told.country, told.genres)
