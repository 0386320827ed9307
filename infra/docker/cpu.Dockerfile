# The image of runs, of workers of the pool cpu, and of the MLflow and Prefect servers. Build it in the repository's root:
#   docker build -f infra/docker/cpu.Dockerfile -t layerwright:cpu .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY flows flows
COPY tasks tasks
COPY kernels kernels
COPY infra infra
COPY layerwright layerwright
# the CPU build of torch: PyPI's build includes CUDA
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
 && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt '.[stack]'

FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 layerwright && mkdir /home/layerwright/work \
 && chown layerwright /home/layerwright/work
COPY --from=build /opt/venv /opt/venv
COPY flows /app/flows
COPY tasks /app/tasks
COPY kernels /app/kernels
COPY infra /app/infra
COPY layerwright /app/layerwright
COPY recipes /app/recipes
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 LAYERWRIGHT_HOME=/home/layerwright/work \
    DO_NOT_TRACK=1 PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 PREFECT_LOGGING_EXTRA_LOGGERS=layerwright
WORKDIR /app
USER layerwright
CMD ["prefect", "worker", "start", "--pool", "cpu", "--type", "process"]
