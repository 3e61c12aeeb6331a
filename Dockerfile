# The platform's own image: runs are executed in it where KAAPANA_RUN_LAUNCHER=kubernetes (docs/containers.md).
#   docker build --build-arg BASE_IMAGE=python:3.12-slim --tag registry.example/group/kaapana-assets:0.1.0 .
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}

LABEL org.opencontainers.image.title="kaapana-assets" \
      org.opencontainers.image.version="0.1.0"

# Compiled files are told from outdated ones by content, not by times, which builds set.
ARG SOURCE_DATE_EPOCH=315532800
# Any user may run it: the one whose files are in KAAPANA_HOME. It needs no entry in /etc/passwd.
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/opt/kaapana-assets HOME=/tmp USER=kaapana LOGNAME=kaapana

WORKDIR /opt/kaapana-assets
# What changes rarely comes first, so that a build after a change of the sources takes seconds.
COPY requirements.txt /tmp/requirements.txt
# What pip is told at this site is lent to the build and does not stay in the image.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem \
    pip install --no-cache-dir --require-hashes --no-deps --requirement /tmp/requirements.txt
COPY LICENSE NOTICE THIRD_PARTY.md pyproject.toml ./
COPY images/ images/
COPY kaapana_assets/ kaapana_assets/
# An image that lacks a library is not made.
RUN python -m compileall -q kaapana_assets && KAAPANA_HOME=/tmp/none python -c "import kaapana_assets.definitions"

USER 1000
# No ENTRYPOINT: who starts a run gives the whole command.
CMD ["python", "-m", "kaapana_assets", "up"]
