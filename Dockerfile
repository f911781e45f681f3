# One image for SageMaker's `train` and `serve`, and for anywhere else that runs containers.
#
#   docker build -t firstspin .                       for SageMaker, which takes no OCI media types: docs/sagemaker.md
#   docker build -t firstspin-serve --target serve .  for others: `firstspin serve` as a user without rights
#
# The base is pinned by the digest of its index for all platforms, as public Dockerfiles of October 2026 name it; no
# registry of images could be asked where this file was written. For a newer one:
#   docker buildx imagetools inspect python:3.11-slim-trixie
#   docker buildx build --build-arg BASE=python@sha256:… -t firstspin .
ARG BASE=python:3.11.17-slim-trixie@sha256:45037981b62b34b44602584fccbc4d884d5f7dc92c7ee86bb38a698a79fe1e51

FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libgomp1 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/firstspin
ENV PATH=/opt/firstspin/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/run.txt requirements/
RUN pip install --require-hashes -r requirements/run.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation .
# setup.py goes on where nothing compiles; an image should not
RUN python -c "import firstspin.models.trees._bitrows, firstspin.models._ranking, firstspin.models.evidence._moves, firstspin.data.labels._windows, firstspin.service.__main__, lightgbm"
COPY .ci/sbom.py ./
RUN python sbom.py > /opt/firstspin/sbom.cdx.json

FROM ${BASE} AS runtime
# LightGBM's wheel needs the system's OpenMP
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin firstspin
COPY --from=build /opt/firstspin /opt/firstspin
ENV PATH=/opt/firstspin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.title="firstspin" org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('SAGEMAKER_BIND_TO_PORT', '8080') + '/ping', timeout=2)"]

# Anywhere but SageMaker: docker run -v BUNDLE:/bundle:ro -p 8080:8080 firstspin-serve
FROM runtime AS serve
USER 10001:10001
ENTRYPOINT ["firstspin", "serve", "--host", "0.0.0.0", "--bundle", "/bundle"]

# SageMaker, and what is built when nothing else is asked for. It mounts /opt/ml for root and says to expect root only;
# the service needs no rights and runs as any user who can read the model.
FROM runtime AS sagemaker
LABEL com.amazonaws.sagemaker.capabilities.multi-models="true" com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"
USER root
ENTRYPOINT ["firstspin-container"]
