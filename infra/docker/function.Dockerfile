# The entry function as a container: docker build -f infra/docker/function.Dockerfile -t upres-function .
FROM python:3.13-slim

WORKDIR /upres
COPY function/requirements.txt function/requirements.txt
RUN pip install --no-cache-dir -r function/requirements.txt
COPY core core
COPY function function
COPY client/web client/web

RUN useradd --system upres
USER upres
# It writes nothing: run it with --read-only.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# It does not start before UPRES_ACCESS says who may use it.
CMD ["python", "-m", "function", "--host", "0.0.0.0", "--port", "8000"]
