"""The models as a scikit-learn estimator, for pipelines, grid search and cross-validation (extra: sklearn)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstspin.data import ingest
from firstspin.data.formats.columns import Shape, shape_of
from firstspin.data.formats.dataframes import DataFrame, received, registrations_file
from firstspin.data.further_fields import with_further_fields
from firstspin.data.registrations.reading import read_people
from firstspin.data.schema import NUMBER, REGISTERED_AT, REGISTRATION_COLUMNS, TEXT, USER_ID
from firstspin.files import workspace
from firstspin.models import registry, scorers
from firstspin.models.features import Encoder
from firstspin.models.predictor import Array, Predictor, order
from firstspin.models.registry import Learning
from firstspin.records import MAX_SEED, Examples, InputError, Registration

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
except ImportError as problem:
    raise ImportError("GenreClassifier needs scikit-learn: pip install 'firstspin[sklearn]'") from problem

if TYPE_CHECKING:
    import pyarrow as pa

Features: TypeAlias = DataFrame | ArrayLike

_KINDS: Final[Mapping[Shape | None, str]] = {
    Shape.text: TEXT,
    Shape.flag: TEXT,
    Shape.whole: NUMBER,
    Shape.decimal: NUMBER,
    Shape.floating: NUMBER,
    Shape.nothing: NUMBER,
}


class GenreClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A model of firstspin as a classifier of registrations: their top genre, and the probability of each.

    X is a table (n, p) of registration answers (pandas, Polars, Arrow): `age`, `gender`, `country`, `genres`, and
    further columns of numbers or text. Its values are read as those of the registrations table; `user_id` and
    `registered_at` are ignored. X may also be an array of numbers, NaN where missing. y (n,) are the labels.

    `model` is a name of the models; `random_state` seeds training. After `fit`: `classes_` (k,) the sorted labels,
    `predictor_` the trained model.
    """

    def __init__(self, model: str = "auto", *, random_state: Any = 0) -> None:
        self.model = model
        self.random_state = random_state

    def fit(self, X: Features, y: ArrayLike) -> Self:
        """Train the model on X (n, p) and y (n,). Raises ValueError where either can't be read, or y has one class."""
        with _as_value_error():
            registry.check_name(self.model)
            registrations = self._registrations(X, y, reset=True)
            labels = column_or_1d(y, warn=True)
            if missing := [
                at for at, label in enumerate(labels.tolist()) if label is None or (label != label) is not False
            ]:
                raise ValueError(f"y row {missing[0] + 1} is missing, and {len(missing) - 1} more")
            check_classification_targets(labels)
            check_consistent_length(registrations, labels)
            self.classes_, tops = np.unique(labels, return_inverse=True)
            if len(self.classes_) < 2:
                raise ValueError(f"y has only {len(self.classes_)} class; a model needs at least 2 to choose among")
            users = _examples(registrations, self.classes_, tops)
            seed = check_random_state(self.random_state).randint(MAX_SEED)
            picked = {pick for registration in registrations for pick in registration.genres}
            known_genres = sorted(picked.union(users.genres))
            task = registry.prepare(users, known_genres, extra=tuple(self._extra), learning=Learning(seed=seed))
            self.predictor_ = registry.fit(self.model, task)
        return self

    def predict(self, X: Features) -> NDArray[Any]:
        """The label (n,) of the highest probability for each row of X (n, p). Raises ValueError as `fit`."""
        first = order(self.predict_proba(X))[:, 0]
        labels: NDArray[Any] = self.classes_[first]
        return labels

    def predict_proba(self, X: Features) -> Array:
        """The probabilities (n, k) for X (n, p), in the order of `classes_`. Raises ValueError as `fit`."""
        check_is_fitted(self)
        with _as_value_error():
            return self.predictor_.probabilities(self._registrations(X, reset=False))

    def _registrations(self, X: Features, y: ArrayLike | str = "no_validation", *, reset: bool) -> list[Registration]:
        has_numbers_for_names = any(isinstance(name, int) for name in getattr(X, "columns", ()))
        if isinstance(X, DataFrame) and not has_numbers_for_names:
            return self._of_table(X, reset=reset)
        numbers = validate_data(self, X, y, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        rows = (numbers[0] if reset else numbers).tolist()
        if reset:
            self._extra = {f"x{at}": NUMBER for at in range(self.n_features_in_)}
        if len(self._extra) != self.n_features_in_:
            raise InputError("X is an array; this model was trained on a table, whose columns have names")
        kind = with_further_fields(tuple(self._extra))
        answers = ({name: cell for name, cell in zip(self._extra, row, strict=True) if cell == cell} for row in rows)
        return [kind(**answered) for answered in answers]

    def _of_table(self, X: DataFrame, *, reset: bool) -> list[Registration]:
        arrow = received(X, "X")
        if hasattr(X, "index") and hasattr(X, "columns"):
            arrow = arrow.select(list(X.columns))  # the index of a pandas table is no feature
        validate_data(self, arrow, reset=reset, skip_check_array=True)
        answers = arrow.select([name for name in arrow.column_names if name not in (USER_ID, REGISTERED_AT)])
        if reset:
            self._extra = {
                field.name: _kind_of(field) for field in answers.schema if field.name not in REGISTRATION_COLUMNS
            }
        with workspace("estimator") as folder:
            path = registrations_file(answers, folder, self._extra)
            people = ingest.read_registrations(path, workspace=folder, extra=self._extra)
            parts = read_people(people.connection, tuple(self._extra))
            return [registration for _, registrations in parts for registration in registrations]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The trained model as in a bundle: arrays and text, no code."""
        state: dict[str, Any] = super().__getstate__()
        if predictor := state.get("predictor_"):
            scorer = predictor.scorer
            saved = (predictor.encoder.state(), scorer.kind, scorer.state())
            return {**state, "predictor_": (*saved, predictor.genres, predictor.name, predictor.made_of)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if saved := state.get("predictor_"):
            encoder, kind, scorer, genres, name, made_of = saved
            predictor = Predictor(Encoder.from_state(encoder), genres, scorers.load(kind, scorer), name, made_of)
            state = {**state, "predictor_": predictor}
        super().__setstate__(state)


def _examples(registrations: Sequence[Registration], classes: NDArray[Any], tops: NDArray[np.int64]) -> Examples:
    """The training data of labels without listening: all of a user's seconds go to the top genre."""
    are_names = all(isinstance(one, str) for one in classes.tolist())
    genres = tuple(classes.tolist()) if are_names else tuple(f"{at:09}" for at in range(len(classes)))
    rows = len(registrations)
    user_ids = tuple(map(str, range(rows)))
    return Examples(user_ids, tuple(registrations), np.zeros(rows, "M8[s]"), genres, tops, np.eye(len(genres))[tops])


def _kind_of(field: pa.Field) -> str:
    """The kind of a further column. Raises InputError where it is neither numbers nor text."""
    kind = _KINDS.get(shape_of(field.type))
    if kind is None:
        raise InputError(f"X: {field.name} is {field.type}, where text or numbers are needed")
    return kind


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Convert InputError to the error that scikit-learn's tools expect: Raises ValueError where one is raised."""
    try:
        yield
    except InputError as problem:
        raise ValueError(str(problem)) from problem
