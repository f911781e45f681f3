"""How an endpoint hosts a bundle: the settings of its model and of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from firstspin.records import InputError

VARIANT: Final = "AllTraffic"
INSTANCE_TYPE: Final = "ml.c6i.large"
INSTANCES: Final = 2
STARTUP_SECONDS: Final = 240
MEMORY_MB: Final = (1024, 2048, 3072, 4096, 5120, 6144)
MAX_CONCURRENCY: Final = 200
CONTENT_TYPES: Final = {"JsonContentTypes": ["application/json"], "CsvContentTypes": ["text/csv"]}


@dataclass(frozen=True, slots=True)
class Hosting:
    """Settings of an endpoint: image, execution role, instances, environment of the container, tags.

    `key` is the ARN of a KMS key for the instances' volumes. With `memory_mb` the endpoint is serverless, with at most
    `concurrency` requests at once. `capture` is an S3 URL to which `capture_percent` of requests and responses go.
    Raises InputError where a value is out of range, or serverless inference has no such setting.
    """

    image: str
    role: str
    instance_type: str = INSTANCE_TYPE
    instances: int = INSTANCES
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    memory_mb: int = 0
    concurrency: int = 20
    capture: str = ""
    capture_percent: int = 100

    def __post_init__(self) -> None:
        if self.memory_mb and self.memory_mb not in MEMORY_MB:
            raise InputError(f"serverless inference has {', '.join(map(str, MEMORY_MB))} MB of memory")
        if self.memory_mb and (self.capture or self.key):
            raise InputError("serverless inference has no data capture and no volume to encrypt")
        if not (1 <= self.concurrency <= MAX_CONCURRENCY and 0 <= self.capture_percent <= 100):
            raise InputError(f"a concurrency is 1 to {MAX_CONCURRENCY}, a share to capture 0 to 100 percent")
        if self.capture and not self.capture.startswith("s3://"):
            raise InputError("captured data goes to a URL such as s3://BUCKET/capture")

    @property
    def model(self) -> dict[str, Any]:
        """CreateModel's settings, without the archive.

        The container only answers; SageMaker itself fetches the model. Serverless inference has no network isolation.
        """
        container = {"Image": self.image, "Environment": dict(self.environment)}
        isolated = {} if self.memory_mb else {"EnableNetworkIsolation": True}
        return {"ExecutionRoleArn": self.role, "PrimaryContainer": container} | isolated

    def configuration(self, variant: str) -> dict[str, Any]:
        """CreateEndpointConfig's settings, without the model."""
        configuration: dict[str, Any] = {"ProductionVariants": [{"VariantName": variant} | self._capacity()]}
        if self.key:
            configuration["KmsKeyId"] = self.key
        if self.capture:
            configuration["DataCaptureConfig"] = {
                "EnableCapture": True,
                "InitialSamplingPercentage": self.capture_percent,
                "DestinationS3Uri": self.capture,
                "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
                "CaptureContentTypeHeader": CONTENT_TYPES,
            }
        return configuration

    def _capacity(self) -> dict[str, Any]:
        if self.memory_mb:
            return {"ServerlessConfig": {"MemorySizeInMB": self.memory_mb, "MaxConcurrency": self.concurrency}}
        return {
            "InitialInstanceCount": self.instances,
            "InstanceType": self.instance_type,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
            "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_SECONDS,
        }
