"""SageMaker's container contract as numbered facts, with their sources and severity.

The tables `CHECKS` of the other modules have the function that tests each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SOURCES = {
    "H": "SageMaker developer guide, Custom Inference Code with Hosting Services",
    "B": "SageMaker developer guide, Custom Inference Code with Batch Transform",
    "T": "SageMaker developer guide, Containers with Custom Training Algorithms",
    "M": "SageMaker developer guide, Custom Containers Contract for Multi-Model Endpoints",
    "A": "SageMaker developer guide, autoscaling policies and load tests",
    "S": "SageMaker developer guide, Serverless Inference",
    "Y": "SageMaker developer guide, Asynchronous Inference",
    "C": "SageMaker developer guide, Monitor with CloudWatch",
    "SDK": "botocore's service models of sagemaker and sagemaker-runtime",
    "K": "sources of AWS's sagemaker-inference and sagemaker-training toolkits",
    "HTTP": "RFC 9110 and RFC 9112",
    "L": "developer guides of API Gateway, Lambda and DynamoDB",
}


class Severity(StrEnum):
    """The effect of a violation."""

    REQUIRED = "required"  # the endpoint or the job fails
    EXPECTED = (
        "expected"  # it runs with a defect: a lost request at scale-in, a refused kind of body, a missing message
    )
    OPTIONAL = "optional"  # a capability that SageMaker uses only where the container has it


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of the contract. `beyond` is the reason why it can't be tested on a container; empty where it can."""

    number: str
    title: str
    source: str
    severity: Severity = Severity.REQUIRED
    beyond: str = ""


EXPECTED, OPTIONAL = Severity.EXPECTED, Severity.OPTIONAL

HOSTING = (
    Fact("1.1", "starts with the argument `serve`", "H"),
    Fact("1.2", "ENTRYPOINT in exec form, not tini", "H", EXPECTED),
    Fact("2.1", "ends by itself within 30 s of SIGTERM", "H", EXPECTED),
    Fact("2.2", "ends with exit status 0 after SIGTERM", "H", EXPECTED),
    Fact("2.3", "answers the requests begun before SIGTERM", "H", EXPECTED),
    Fact("2.4", "answers a request that was half received at SIGTERM", "H", EXPECTED),
    Fact("3.1", "runs as root", "H"),
    Fact("3.2", "the image does not leave root for another user", "H", EXPECTED),
    Fact("4.1", "serves the model found in /opt/ml/model", "H"),
    Fact("4.2", "leaves /opt/ml/model as it was", "H", EXPECTED),
    Fact("5.1", "listens on port 8080", "H"),
    Fact("5.2", "listens on the port in SAGEMAKER_BIND_TO_PORT instead", "H, K", OPTIONAL),
    Fact("5.3", "LABEL ...capabilities.accept-bind-to-port=true", "H", OPTIONAL),
    Fact("6.1", "GET /ping answers 200", "H"),
    Fact("6.2", "the body of that answer is empty", "H", EXPECTED),
    Fact("6.3", "each ping is answered within 2 s", "H"),
    Fact("6.4", "the first 200 comes within 4 minutes of the start", "H, SDK"),
    Fact("6.5", "pings are answered within 2 s while requests are being answered", "H"),
    Fact("7.1", "connections are accepted within 250 ms", "H"),
    Fact("7.2", "POST /invocations answers 2xx within 60 s", "H, SDK"),
    Fact("7.3", "a connection serves more than one request", "HTTP", EXPECTED),
    Fact("7.4", "a chunked body is read", "HTTP", EXPECTED),
    Fact("8.1", "unknown headers change nothing", "H"),
    Fact("8.2", "the forwarded X-Amzn-SageMaker headers are tolerated at full length", "H, SDK"),
    Fact("9.1", "a body of 6,291,456 bytes is answered 2xx", "SDK"),
    Fact("9.2", "an answer of more bytes than that is not sent, but a status 4xx", "SDK", EXPECTED),
    Fact("10.1", "a broken body of each type is answered with an error status", "SDK, C"),
    Fact("10.2", "that status is 4xx: the caller's fault, not ours", "C", EXPECTED),
    Fact("10.3", "broken bodies and cut connections do not stop the server", "H"),
    Fact("11.1", "starts with an environment of 100 variables, 32 KB in all", "SDK"),
    Fact(
        "11.2",
        "the toolkits' variables (SAGEMAKER_MODEL_SERVER_WORKERS ...) are honoured",
        "K",
        OPTIONAL,
        beyond="a convention of the toolkits; their effect cannot be seen from outside",
    ),
    Fact("12.1", "application/json is answered", "K", EXPECTED),
    Fact("12.2", "text/csv is answered", "K", EXPECTED),
    Fact("12.3", "JSON Lines is answered", "K", EXPECTED),
    Fact("12.4", "a content type with a parameter (; charset=utf-8) is the same type", "HTTP", EXPECTED),
    Fact("12.5", "an unknown content type is answered 415", "K", OPTIONAL),
    Fact("13", "CloudWatch metrics of the endpoint", "C", beyond="SageMaker emits them"),
    Fact("14.1", "GET /metrics is a Prometheus page", "SDK", OPTIONAL),
    Fact("15.1", "the answer is in the encoding of the request", "SDK", EXPECTED),
    Fact("27.1", "serverless: the first 200 comes within 3 minutes of the start", "S", OPTIONAL),
)

TRAINING = (
    Fact("16.1", "a job runs with the argument `train` and ends with exit status 0", "T"),
    Fact("17.1", "hyperparameters are understood although every value is a string", "T, SDK"),
    Fact("17.2", "runs beside inputdataconfig.json and resourceconfig.json as SageMaker writes them", "T"),
    Fact("18.1", "reads its channels in /opt/ml/input/data: without data the job fails", "T"),
    Fact("18.2", "leaves /opt/ml/input as it was", "T", EXPECTED),
    Fact("19.1", "leaves its model in /opt/ml/model", "T"),
    Fact("19.2", "writes nowhere else below /opt/ml than model, output and checkpoints", "T", EXPECTED),
    Fact("19.3", "a job that fails ends with another exit status than 0", "T"),
    Fact("19.4", "a job that fails says why in /opt/ml/output/failure", "T", EXPECTED),
    Fact("19.5", "that text is at most 1024 characters, as the rest is cut", "T, SDK", EXPECTED),
    Fact("19.6", "the model it left is served", "T, H"),
    Fact("19.7", "neither VOLUME nor WORKDIR of the image lies in /opt/ml", "T", EXPECTED),
    Fact("20.1", "runs with TRAINING_JOB_NAME, TRAINING_JOB_ARN and 100 variables set", "T, SDK"),
    Fact("21.1", "ends by itself within 120 s of SIGTERM", "T", EXPECTED),
    Fact("21.2", "leaves a model when it is stopped", "T", OPTIONAL),
    Fact("22.1", "prints metrics as `name=number;` for tuning to read", "SDK", OPTIONAL),
)

BATCH = (
    Fact("23.1", "starts and answers with the variables of batch transform set", "B"),
    Fact("23.2", "answers a line for each record", "B", EXPECTED),
    Fact(
        "23.3",
        "answers as many records as a job sends at a time: 6 MB of them, or what /execution-parameters names",
        "B, SDK",
        EXPECTED,
    ),
    Fact("24.1", "GET /execution-parameters names its limits", "B, SDK", OPTIONAL),
    Fact("25", "time limits and retries of a transform job", "SDK", beyond="the job's settings, kept by SageMaker"),
)

MULTIMODEL = (
    Fact("26.1", "POST /models loads a model", "M", OPTIONAL),
    Fact("26.2", "loading it twice is answered 409", "M", OPTIONAL),
    Fact("26.3", "GET /models lists it", "M", OPTIONAL),
    Fact("26.4", "GET /models/NAME shows it", "M", OPTIONAL),
    Fact("26.5", "POST /models/NAME/invoke answers", "M", OPTIONAL),
    Fact("26.6", "an unknown model is answered 404 by each verb", "M", OPTIONAL),
    Fact("26.7", "DELETE /models/NAME unloads it", "M", OPTIONAL),
    Fact("26.8", "507 when memory is out", "M", OPTIONAL, beyond="memory would have to run out"),
    Fact("26.9", "LABEL ...capabilities.multi-models=true", "M", OPTIONAL),
)

ACCOUNT = "the account's side: no container sees it"
BEYOND = (
    Fact("27.2", "serverless: the image has at most 10 GB", "S, SDK", OPTIONAL),
    Fact("27.3", "serverless: memory, concurrency", "S, SDK", OPTIONAL, beyond=ACCOUNT),
    Fact("28", "asynchronous: bodies up to 1 GB, an hour an answer", "Y, SDK", OPTIONAL, beyond="needs S3"),
    Fact("29", "inference components", "SDK", OPTIONAL, beyond=ACCOUNT),
    Fact("30", "production variants and how traffic is split", "SDK", OPTIONAL, beyond=ACCOUNT),
    Fact("31", "blue/green rollout and alarms", "SDK", OPTIONAL, beyond=ACCOUNT),
    Fact("32", "autoscaling metrics", "SDK", OPTIONAL, beyond=ACCOUNT),
    Fact("33", "autoscaling dimensions", "SDK", OPTIONAL, beyond=ACCOUNT),
    Fact("34", "autoscaling target from a load test", "A", OPTIONAL, beyond=ACCOUNT),
    Fact("35", "API Gateway limits", "L", OPTIONAL, beyond=ACCOUNT),
    Fact("36", "Lambda limits", "L", OPTIONAL, beyond=ACCOUNT),
    Fact("37", "API Gateway straight to the endpoint", "L", OPTIONAL, beyond=ACCOUNT),
    Fact("38", "SigV4", "SDK", OPTIONAL, beyond=ACCOUNT),
    Fact("39", "proxy event shapes", "L", OPTIONAL, beyond=ACCOUNT),
    Fact("40", "DynamoDB batch limits", "SDK", OPTIONAL, beyond=ACCOUNT),
)

PROMISED = {"5.2": "5.3"}
"""Optional facts that are expected where the image's label (the other fact) declares them."""

FACTS = HOSTING + TRAINING + BATCH + MULTIMODEL + BEYOND
