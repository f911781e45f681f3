"""The same model as a BentoML service."""

import bentoml
import plain


@bentoml.service(workers=1)
class Newcomers:
    """Answers registrations."""

    @bentoml.api(route="/invocations")
    def invocations(
        self,
        age: int | None = None,
        gender: str | None = None,
        country: str | None = None,
        genres: list[str] = [],  # noqa: B006 - read only
    ) -> dict:
        return plain.answer(age, gender, country, genres)
