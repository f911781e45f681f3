"""Answers that are neither recommendations nor events, with the names of SageMaker's API: models and batch limits."""

from __future__ import annotations

import msgspec


class ListedModel(msgspec.Struct, frozen=True):
    """A loaded model of a multi-model endpoint."""

    modelName: str
    modelUrl: str


class ModelPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of the loaded models; `nextPageToken` asks for the next page, where there is one."""

    models: list[ListedModel]
    nextPageToken: str | None = None


class BatchLimits(msgspec.Struct, frozen=True):
    """The limits of batch transform."""

    MaxConcurrentTransforms: int
    BatchStrategy: str
    MaxPayloadInMB: int
