# The pipeline's image. Everything but the service runs from it: Dagster's webserver, its daemon and the code location,
# the MLflow server. docker-compose.yml says which command each runs.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# The packages first: they change less often than the code. All come as wheels, so no compiler is needed; the lock
# names every one of them, so nothing is left to resolve (--no-deps).
COPY requirements/run.lock /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/run.lock

# Volumes take over the owner of the folder they are mounted on. The file declines OpenVINO's telemetry.
RUN useradd --system --uid 10001 --create-home footprint \
    && mkdir /state /artifacts /counters /home/footprint/intel \
    && printf 0 > /home/footprint/intel/openvino_telemetry \
    && chown -R footprint /state /artifacts /counters /home/footprint

WORKDIR /app
COPY pyproject.toml README.md LICENSE dagster.yaml ./
COPY footprint_pipeline footprint_pipeline
COPY serving serving
COPY configs configs
COPY deploy deploy
# Editable, for the code finds dagster.yaml beside itself. The command `footprint` comes with it.
# dagster.yaml holds the common settings; deploy/postgres-storage.yaml adds where this instance keeps its state.
RUN pip install --no-cache-dir --no-index --no-deps --no-build-isolation --editable . \
    && cat deploy/postgres-storage.yaml >> dagster.yaml

ENV DAGSTER_HOME=/app \
    FOOTPRINT_HOME=/state \
    GIT_PYTHON_REFRESH=quiet \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2
USER footprint
EXPOSE 4000
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s CMD dagster api grpc-health-check --port 4000
CMD ["sh", "deploy/start-code-location.sh"]
