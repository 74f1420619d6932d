# syntax=docker/dockerfile:1
# What Spark does: extract, publish, sequences, and the planning of encode, tokenize, backfill and train-tokenizer.
# Spark comes with the pyspark package; nothing here depends on the processor, so it is built for amd64 and arm64 alike.
ARG PYTHON=python:3.11.13-slim-bookworm

# Delta and S3A by their Maven coordinates, each checked; without what Spark already brings.
FROM ${PYTHON} AS jars
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/*
ARG MAVEN=https://repo1.maven.org/maven2
WORKDIR /maven
COPY docker/jars.sha256 ./
RUN cut -c 67- jars.sha256 \
    | xargs -P 8 -I {} curl --fail --silent --show-error --retry 3 --create-dirs --output {} "$MAVEN/{}" \
    && sha256sum --check --strict --quiet jars.sha256 \
    && mkdir /jars \
    && find . -name '*.jar' -exec mv --target-directory=/jars {} +

# One package serves both engines, so torch comes along; its CPU build is the small one.
FROM ${PYTHON} AS package
WORKDIR /src
COPY docker/requirements.txt ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY tokenizer tokenizer
COPY ranker ranker
COPY pipeline pipeline
COPY jobs jobs
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps . && /opt/venv/bin/pip check

FROM ${PYTHON}
# Debian keeps no old versions, so a pinned one would fail to build some day: the digest of PYTHON and a rebuild pin more.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends default-jre-headless procps \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 hisam \
    && install --directory --owner=hisam /work
COPY --from=package /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH SPARK_HOME=/opt/venv/lib/python3.11/site-packages/pyspark
COPY --from=jars /jars $SPARK_HOME/jars/
COPY docker/spark-entrypoint.sh docker/hisam.py /opt/hisam/
RUN hisam --help && python -m pipeline.on_spark.java
USER 1000:1000
WORKDIR /work
# A job ends with its exit status; this only tells that its command could start.
HEALTHCHECK --interval=5m --timeout=30s CMD ["hisam", "--help"]
ENTRYPOINT ["/opt/hisam/spark-entrypoint.sh"]
CMD ["hisam", "--help"]
