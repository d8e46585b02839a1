# The image that serves; docs/container.md has the commands.
#   VARIANT=onnx    (default) the ONNX formats on the CPU, without torch
#   VARIANT=torch   also TorchScript and AOTInductor; TORCH_INDEX=URL takes CPU-only wheels, a twentieth of the size
#   VARIANT=gpu     all formats, on NVIDIA GPUs
# Pin the base to what you have tested: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

# What builds, and stays out of the image.
FROM ${BASE} AS tools
WORKDIR /build
COPY requirements-image.lock ./
# The secrets are optional: a pip.conf for an index of your own, and the certificates that it may name as
# /run/secrets/ca. Neither stays in a layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    python -m venv /opt/tools \
    && /opt/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --quiet \
       --no-deps --require-hashes --requirement requirements-image.lock
ENV PATH=/opt/tools/bin:$PATH

FROM tools AS build
ARG VARIANT=onnx
ARG TORCH_INDEX=
ARG TORCH_SHA256=
COPY requirements-serve.lock requirements-serve-torch.lock ./
COPY scripts/container_packages.sh scripts/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    /usr/local/bin/python -m venv --without-pip /opt/venv \
    && scripts/container_packages.sh /opt/venv "${VARIANT}"
# vendor* has no match where the library is a folder; else it is what scripts/vendor.sh has pinned.
COPY pyproject.toml README.md LICENSE vendor* ./
COPY src src
COPY serving serving
COPY scripts/container_project.sh scripts/
RUN scripts/container_project.sh /opt/venv \
    && cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
       --output-file /opt/venv/sbom.cdx.json /opt/venv/bin/python

FROM ${BASE}
LABEL org.opencontainers.image.title="trainyard" \
      org.opencontainers.image.description="Serves image and text classifiers that Trainyard has trained and exported" \
      org.opencontainers.image.licenses="Apache-2.0"
# The base's own pip is of no use to a server, and another thing to patch.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip setuptools wheel \
    && groupadd --gid 10001 serve \
    && useradd --uid 10001 --gid serve --no-create-home --home-dir /tmp --shell /usr/sbin/nologin serve \
    && mkdir /models
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["trainyard", "ready", "http://127.0.0.1:8080"]
ENTRYPOINT ["trainyard", "serve", "--host", "0.0.0.0", "--port", "8080", "--lame-duck", "5"]
CMD ["/models"]
