# Images of the worker, for NVIDIA GPUs and for CPUs. Build them from the root of the repository:
#
#   docker build -f infra/docker/worker.Dockerfile -t upres-worker:0.1.0-cuda .
#   docker build -f infra/docker/worker.Dockerfile -t upres-worker:0.1.0-cpu --build-arg DEVICE=cpu .
#
# With --build-arg WEIGHTS=baked, the image contains the bundled model in /cache, so mount nothing there. The worker checks
# the digests of its files, as for any other model. Without it, the worker pulls models from the bucket into /cache; mount
# a volume there to keep them.
ARG DEVICE=cuda
ARG WEIGHTS=pulled

# NVIDIA's smallest CUDA image is enough, because torch's wheels contain CUDA 13.0.3. The image adds two things: a check
# that reports a host driver that is too old (NVIDIA_REQUIRE_CUDA), and support for somewhat older drivers of data-centre
# GPUs (cuda-compat). function.Dockerfile says where the digests come from, and why COPY sets modes.
FROM nvidia/cuda:13.0.3-base-ubuntu24.04@sha256:7c7413a56200486f71f181cad9310f6fd31b6bb21816ade15fc9c1e1e927a5c1 AS cuda
FROM ubuntu:24.04@sha256:008173c23f95b170204355c12626cb5a965d779a7e1283b09e9cffbb1bf33ca3 AS cpu

FROM ${DEVICE} AS python
WORKDIR /upres
# libseccomp confines the decoders (worker/imaging/sandbox.py); connections to Redis over TLS need ca-certificates.
# Versions are not pinned, because Ubuntu's archive keeps only the newest build of a package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libseccomp2 python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS packages
ARG DEVICE
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/upres
COPY --chmod=755 worker/requirements.txt worker/requirements.txt
# The torch on PyPI installs gigabytes of CUDA. For CPUs, PyTorch's own index has the same version without CUDA.
RUN if [ "$DEVICE" = cpu ]; then \
        pip --python /opt/upres install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu \
            "$(grep '^torch==' worker/requirements.txt)"; \
    fi
RUN pip --python /opt/upres install --no-cache-dir -r worker/requirements.txt

FROM python AS pulled
RUN mkdir -p /cache/models

FROM python AS baked
COPY --chmod=755 models/faithful/1 /models/faithful
COPY --chmod=755 models/photo/1 /models/photo
# Name the files as worker/model.py names the files that it pulls: by their digest.
RUN mkdir -p /cache/models \
    && for file in /models/*/*; do \
        digest=$(sha256sum "$file") && cp "$file" "/cache/models/${digest%% *}.${file##*.}" || exit 1; \
    done

FROM ${WEIGHTS} AS cache

FROM python AS worker
RUN useradd --no-log-init --uid 10001 --create-home upres
COPY --from=packages /opt/upres /opt/upres
COPY --from=cache --chown=10001:10001 /cache /cache
COPY --chmod=755 upres/__init__.py upres/__init__.py
COPY --chmod=755 core upres/core
COPY --chmod=755 worker upres/worker
USER 10001:10001
# The worker writes to /cache and /tmp only: run it with --read-only and --tmpfs /tmp. It needs no privileges to confine
# the decoders.
ENV PATH=/opt/upres/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    UPRES_CACHE_DIR=/cache UPRES_METRICS_PORT=9464
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz', timeout=2)"]
# At SIGTERM, the worker finishes its jobs within UPRES_STOP_SECONDS (30): stop it with `docker stop -t 40`.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "upres.worker"]
