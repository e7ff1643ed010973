# Ledger's image: `make image`, or with a base that is pinned by its digest
#   docker build --build-arg BASE=python:3.13-slim@sha256:... --tag ledger .
# Run it with a read-only root and a writable /tmp. It needs no shell, neither for its start nor for
# probes.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements-build.lock requirements-production.lock ./
# pip checks the hashes of uv and hatchling, uv those of all that Ledger needs.
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
RUN python3 -m venv --without-pip /opt/ledger \
 && /build/bin/uv pip install --python /opt/ledger/bin/python --no-cache --link-mode=copy \
      --require-hashes -r requirements-production.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY ledger ledger
RUN /build/bin/hatchling build --target wheel --directory /dist \
 && /build/bin/uv pip install --python /opt/ledger/bin/python --no-cache --link-mode=copy \
      --no-deps --offline /dist/*.whl \
 && mkdir -p /empty/spool
# The web framework brings Faker to invent examples for OpenAPI, which Ledger does not use: its
# languages are 12 MB.
RUN find /opt/ledger/lib -path '*/faker/providers/*' -type d -name '??_*' ! -name 'en_US' \
      -prune -exec rm -r {} +
# Compiled is what every start loads; the rest would add 30 MB and is needed by few commands.
RUN /opt/ledger/bin/python -m compileall -q \
      -x '/(alembic|apprise|faker|polyfactory|pygments|sqlalchemy)/' /opt/ledger/lib

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="Ledger" \
      org.opencontainers.image.description="Keeps every webhook of a laboratory system, folds them into bills and reports, and proves which never came." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /opt/ledger /opt/ledger
# A new volume that is mounted here takes over its owner.
COPY --from=build --chown=10001:10001 /empty /var/lib/ledger
# The container's network decides who reaches the port.
ENV PATH=/opt/ledger/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LEDGER_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/ledger
EXPOSE 8000
ENTRYPOINT ["ledger"]
CMD ["--help"]
