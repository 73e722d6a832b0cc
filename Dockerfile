# A slim image of bitinfer's server:
#
#     docker build -t bitinfer .
#     docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/examples:/models:ro" bitinfer \
#         serve --host 0.0.0.0 /models/lenet5.bin
#
# docs/serving.md says how large it is and how to run it in a cluster.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python -m venv /opt/bitinfer \
    && BITINFER_REQUIRE_C=1 PIP_CONSTRAINT=/src/.ci/constraints.txt \
        /opt/bitinfer/bin/pip install --no-cache-dir "/src[serve]" \
    && /opt/bitinfer/bin/pip uninstall --yes pip setuptools \
    && /opt/bitinfer/bin/bitinfer info

FROM python:3.11-slim-bookworm
COPY --from=build /opt/bitinfer /opt/bitinfer
ENV PATH=/opt/bitinfer/bin:$PATH PYTHONUNBUFFERED=1
USER 65534:65534
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["bitinfer"]
CMD ["--help"]
