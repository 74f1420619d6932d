"""Which tokenizer a configuration names."""

from tokenizer.config import Method, TokenizerConfig
from tokenizer.dst import DST
from tokenizer.interface import Tokenizer
from tokenizer.rq_kmeans import RQKMeans
from tokenizer.rq_vae import RQVAE


def build(config: TokenizerConfig, text_dim: int, image_dim: int) -> Tokenizer:
    """An untrained tokenizer of the configured method."""
    methods: dict[Method, type[Tokenizer]] = {"dst": DST, "rq_kmeans": RQKMeans, "rq_vae": RQVAE}
    return methods[config.method](config, text_dim, image_dim)
