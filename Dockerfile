# syntax=docker/dockerfile:1
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/tailrace \
 && /opt/tailrace/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements-build.lock \
 && /opt/tailrace/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY . .
RUN /opt/tailrace/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/tailrace/bin/pip uninstall -y cython wheel

FROM python:3.12-slim-bookworm
# PYTHONSAFEPATH: nothing in the working directory can stand in for our top-level packages (ADR 1).
ENV PATH=/opt/tailrace/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 TAILRACE_LISTEN=0.0.0.0
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/tailrace tailrace
COPY --from=build /opt/tailrace /opt/tailrace
COPY config/default.yaml config/gateway.yaml /etc/tailrace/
USER 10001
WORKDIR /var/lib/tailrace
EXPOSE 4317 4318 8888 9464 13133
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:13133/', timeout=2)"]
ENTRYPOINT ["tailrace"]
CMD ["run", "--config", "/etc/tailrace/default.yaml"]
