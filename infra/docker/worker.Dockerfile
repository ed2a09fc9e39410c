# A GPU worker: docker build -f infra/docker/worker.Dockerfile -t upres-worker .
# Run it with --gpus all. torch's wheel brings the CUDA libraries; the driver comes from the host.
FROM python:3.13-slim

# Confines the decoders (worker/imaging/decoder.py).
RUN apt-get update && apt-get install -y --no-install-recommends libseccomp2 && rm -rf /var/lib/apt/lists/*
WORKDIR /upres
COPY worker/requirements.txt worker/requirements.txt
RUN pip install --no-cache-dir -r worker/requirements.txt
COPY core core
COPY worker worker

RUN useradd --system --create-home upres
USER upres
# It writes to ~/.cache/upres and /tmp only: run it with --read-only and volumes or tmpfs there.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# The model is pulled from the bucket into ~/.cache/upres; mount a volume there to keep it.
# Ready when `upres jobs` lists it. SIGTERM finishes the jobs in hand within UPRES_STOP_SECONDS (30): stop it with -t 40.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker"]
