# The entry function, and the command for operators, as containers. From the root of the repository:
#
#   docker build -f infra/docker/function.Dockerfile -t upres-function:0.1.0 .
#   docker build -f infra/docker/function.Dockerfile -t upres-operator:0.1.0 --target operator .
#
# Digests were looked up in other projects' published files, because no registry could be reached from where this was
# written; `docker buildx imagetools inspect python:3.13.15-slim-trixie` says what is behind a tag now.
FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS python

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /upres
COPY function/requirements.txt function/requirements.txt
RUN pip install --no-cache-dir -r function/requirements.txt
COPY upres/__init__.py upres/__init__.py
COPY core upres/core

# `upres keys`, `upres jobs`, `upres models push faithful`.
FROM python AS operator
COPY client/requirements.txt client/requirements.txt
COPY console/requirements.txt console/requirements.txt
RUN pip install --no-cache-dir -r client/requirements.txt -r console/requirements.txt
COPY upres upres
COPY client upres/client
COPY console upres/console
COPY models upres/models
USER 10001:10001
ENTRYPOINT ["python", "-m", "upres"]
CMD ["--help"]

FROM python AS function
COPY function upres/function
COPY client/web upres/client/web
USER 10001:10001
# It writes nothing: run it with --read-only.
EXPOSE 8000 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# It does not start before UPRES_ACCESS says who may use it.
CMD ["python", "-m", "upres.function", "--host", "0.0.0.0", "--port", "8000"]
