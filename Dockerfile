# The service on CPU, as `make serve` starts it, for the embedded model or any other.
#   docker build -t sparsedial .
#   docker run --rm --init -p 127.0.0.1:8000:8000 -v sparsedial:/data --shm-size 1g sparsedial
FROM python:3.11-slim

# Address of an index with CPU builds of torch, for an image without CUDA; empty for the default builds.
ARG TORCH_INDEX=

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pruning ./pruning
COPY service ./service
COPY loadtests ./loadtests
# Editable, because the service finds the embedded model beside its packages.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint constraints.txt --editable .
COPY embedded ./embedded

RUN useradd --create-home --uid 10001 sparsedial && install --directory --owner sparsedial /data
USER 10001

ENV SPARSEDIAL_HOST=0.0.0.0 \
    SPARSEDIAL_STORE=/data
VOLUME /data
EXPOSE 8000

# The first start scores the model and builds the ladder: a minute or two on two cores.
HEALTHCHECK --interval=5s --timeout=4s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=3)"]

ENTRYPOINT ["sparsedial"]
CMD ["serve"]
