# The jobs that run on Ray: encode, train-tokenizer, tokenize, publish, train-ranker, evaluate.
# torch and faiss-gpu bring the CUDA libraries they need; the machine brings the driver and the container toolkit.
FROM python:3.11-slim-bookworm

RUN apt-get update && apt-get install --yes --no-install-recommends procps libgomp1 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/hi-sam
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY tokenizer tokenizer
COPY ranker ranker
COPY pipeline pipeline
COPY jobs jobs
# faiss-cpu and faiss-gpu fill the same folder, so the one must go before the other comes.
RUN pip install --no-cache-dir . && pip uninstall --yes faiss-cpu && pip install --no-cache-dir "faiss-gpu>=1.14"

RUN useradd --create-home --uid 1000 hisam
USER hisam
ENTRYPOINT ["hisam"]
