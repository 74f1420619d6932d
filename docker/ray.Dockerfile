# syntax=docker/dockerfile:1
# What Ray does: --planned halves of encode, tokenize, backfill and train-tokenizer, train-ranker, evaluate, score.
# No Java. With ACCELERATOR=gpu, torch and faiss-gpu bring the CUDA libraries that they need, and the machine brings the
# driver and NVIDIA's container toolkit; faiss-gpu is there for amd64 alone. ACCELERATOR=cpu is small, and for arm64, too.
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS package
ARG ACCELERATOR=gpu
ARG FAISS_GPU=faiss-gpu==1.15.1
WORKDIR /src
COPY docker/requirements.txt ./
# faiss-cpu and faiss-gpu fill the same folder, so the one stands in the place of the other.
RUN python -m venv /opt/venv \
    && if [ "$ACCELERATOR" = gpu ]; then \
        sed -i "s/^faiss-cpu==.*/$FAISS_GPU/" requirements.txt; \
        /opt/venv/bin/pip install --no-cache-dir --requirement requirements.txt; \
    else \
        /opt/venv/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
            --requirement requirements.txt; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY tokenizer tokenizer
COPY ranker ranker
COPY pipeline pipeline
COPY jobs jobs
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps .

FROM ${PYTHON}
# KubeRay's probes call wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 procps wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 hisam \
    && install --directory --owner=hisam /work
COPY --from=package /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN hisam --help && python -c "import faiss, ray, torch"
USER 1000:1000
WORKDIR /work
# A job ends with its exit status; this only tells that its command could start.
HEALTHCHECK --interval=5m --timeout=30s CMD ["hisam", "--help"]
CMD ["hisam", "--help"]
