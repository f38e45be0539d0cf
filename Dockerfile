# syntax=docker/dockerfile:1
# Targets: `serve` (the default, last): the service without torch; `convert`: the exporter.
# Build behind a mirror: --build-arg PIP_INDEX_URL=... ; a CPU build of torch: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
RUN python3 -m venv /opt/venv
# Dependencies first: a change of code alone reuses this layer.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir service convert && touch service/__init__.py convert/__init__.py \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .
COPY service service
COPY convert convert
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --force-reinstall .

FROM build AS build-convert
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt torch==2.13.0 \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[convert]"

FROM ${PYTHON_IMAGE} AS base
# UTF-8 whatever the host's locale; no .pyc on a read-only root.
ENV PATH=/opt/venv/bin:$PATH PYTHONUTF8=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# They belong to the user, so that volumes mounted there are writable: /models for `convert`, /cache for `serve`.
RUN useradd --system --uid 10001 --create-home --home-dir /home/minicpmv minicpmv \
 && install -d -o minicpmv -g minicpmv /models /cache

FROM base AS convert
COPY --from=build-convert /opt/venv /opt/venv
USER minicpmv
WORKDIR /home/minicpmv
ENTRYPOINT ["python3", "-m", "convert"]
CMD ["--help"]

FROM base AS serve
# Packages a device needs, e.g. --build-arg DEVICE_PACKAGES="intel-opencl-icd" for an Intel GPU.
ARG DEVICE_PACKAGES=""
RUN if [ -n "${DEVICE_PACKAGES}" ]; then \
        apt-get update && apt-get install -y --no-install-recommends ${DEVICE_PACKAGES} \
        && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /opt/venv /opt/venv
USER minicpmv
WORKDIR /home/minicpmv
ENV MINICPMV_HOST=0.0.0.0 MINICPMV_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"MINICPMV_PORT\"]}/health/ready', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "service"]
