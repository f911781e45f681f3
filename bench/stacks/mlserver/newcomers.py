"""The same model as an MLServer runtime, with a path of its own beside the inference protocol's."""

import plain
from mlserver import MLModel
from mlserver.handlers import custom_handler
from pydantic import BaseModel


class Registration(BaseModel):
    """What a newcomer told us."""

    age: int | None = None
    gender: str | None = None
    country: str | None = None
    genres: list[str] = []


class Newcomers(MLModel):
    """Answers registrations."""

    async def load(self) -> bool:
        return True

    @custom_handler(rest_path="/invocations")
    async def invocations(self, told: Registration) -> dict[str, object]:
        return plain.answer(told.age, told.gender, told.country, told.genres)
