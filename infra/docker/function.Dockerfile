# Images of the entry function and of the commands for operators. Build them from the root of the repository:
#
#   docker build -f infra/docker/function.Dockerfile -t upres-function:0.1.0 .
#   docker build -f infra/docker/function.Dockerfile -t upres-operator:0.1.0 --target operator .
#
# COPY sets modes (--chmod needs BuildKit): those of a checkout made with umask 077 would keep the image's user from reading.
#
# The digests come from other projects' published files, because no registry could be reached when this was written.
# `docker buildx imagetools inspect python:3.13.15-slim-trixie` prints the current digest of a tag.
FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS python

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /upres
COPY --chmod=755 function/requirements.txt function/requirements.txt
RUN pip install --no-cache-dir -r function/requirements.txt
COPY --chmod=755 upres/__init__.py upres/__init__.py
COPY --chmod=755 core upres/core

# The commands for operators: `upres keys`, `upres jobs`, `upres models push photo`.
FROM python AS operator
COPY --chmod=755 client/requirements.txt client/requirements.txt
COPY --chmod=755 console/requirements.txt console/requirements.txt
RUN pip install --no-cache-dir -r client/requirements.txt -r console/requirements.txt
COPY --chmod=755 upres upres
COPY --chmod=755 client upres/client
COPY --chmod=755 console upres/console
COPY --chmod=755 models upres/models
USER 10001:10001
ENTRYPOINT ["python", "-m", "upres"]
CMD ["--help"]

FROM python AS function
COPY --chmod=755 function upres/function
COPY --chmod=755 client/web upres/client/web
USER 10001:10001
# The function writes no files: run it with --read-only.
EXPOSE 8000 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# The function does not start without UPRES_ACCESS, which says who may use it.
CMD ["python", "-m", "upres.function", "--host", "::", "--port", "8000"]
