# docker build --target full -t oss-eval .          everything: benchmarks, viewer, Ray; also for KubeRay
# docker build --target load -t oss-eval:load .     load sweeps only: deploy/load.txt
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.12-slim AS load
COPY constraints.txt deploy/load.txt /requirements/
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps -r /requirements/load.txt -c /requirements/constraints.txt
RUN pip install --no-cache-dir --no-deps /wheels/oss_eval-*.whl
RUN useradd --uid 10001 --create-home oss-eval
USER 10001
WORKDIR /home/oss-eval
ENTRYPOINT ["oss-eval"]

FROM python:3.12-slim AS full
# KubeRay's health checks call wget.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /requirements/
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir -c /requirements/constraints.txt /wheels/oss_eval-*.whl 'ray[default]' azure-identity
RUN useradd --uid 10001 --create-home oss-eval
USER 10001
WORKDIR /home/oss-eval
EXPOSE 7860
ENTRYPOINT ["oss-eval"]
