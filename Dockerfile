# The image of the operator and of the fetch Job. Both stages use the same base, so the virtual environment's link to
# the interpreter holds in the second.
FROM python:3.13-slim-trixie AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The locked packages change less often than the code: they are a layer of their own.
COPY requirements.lock .github/image/build.lock ./
RUN python -m venv --without-pip /opt/build \
    && pip --python /opt/build/bin/python install --require-hashes --requirement build.lock \
    && python -m venv --without-pip /opt/ai-sandbox \
    && pip --python /opt/ai-sandbox/bin/python install --require-hashes --only-binary :all: --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY operator/ai_sandbox_operator operator/ai_sandbox_operator
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /opt/wheel \
    && pip --python /opt/ai-sandbox/bin/python install --no-deps --no-index /opt/wheel/*.whl

FROM python:3.13-slim-trixie

LABEL org.opencontainers.image.title="ai-sandbox-operator" \
      org.opencontainers.image.description="Private, closed-by-default LLM sandboxes on Linode Kubernetes Engine" \
      org.opencontainers.image.source="https://github.com/linode/ai-sandbox-operator" \
      org.opencontainers.image.licenses="Apache-2.0"

# Nothing is installed at run time.
RUN python -m pip uninstall --yes pip
COPY --from=build /opt/ai-sandbox /opt/ai-sandbox

# The root file system is read-only in the cluster; /tmp is a volume there.
ENV PATH=/opt/ai-sandbox/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 65532:65532
ENTRYPOINT ["ai-sandbox-operator"]
CMD ["run"]
