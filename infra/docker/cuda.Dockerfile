# The image of workers of the pool gpu. Run one worker per GPU, or per set of GPUs for one step (CUDA_VISIBLE_DEVICES).
#   docker build -f infra/docker/cuda.Dockerfile -t layerwright:cuda .
FROM nvidia/cuda:12.9.1-base-ubuntu24.04
# gcc: Triton compiles its launcher the first time a kernel runs
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev git \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 layerwright && mkdir /home/layerwright/work \
 && chown layerwright /home/layerwright/work
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY flows flows
COPY tasks tasks
COPY kernels kernels
COPY infra infra
COPY layerwright layerwright
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt '.[stack]'
COPY recipes recipes
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 LAYERWRIGHT_HOME=/home/layerwright/work \
    DO_NOT_TRACK=1 PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 PREFECT_LOGGING_EXTRA_LOGGERS=layerwright
USER layerwright
CMD ["prefect", "worker", "start", "--pool", "gpu", "--type", "process", "--limit", "1"]
