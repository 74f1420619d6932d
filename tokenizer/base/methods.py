"""Which tokenizer a configuration names."""

from tokenizer.base.config import Method, TokenizerConfig
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.baselines.rq_kmeans import RQKMeans
from tokenizer.baselines.rq_vae import RQVAE
from tokenizer.dst.model import DST


def build(config: TokenizerConfig, text_dim: int, image_dim: int) -> Tokenizer:
    """An untrained tokenizer of the configured method."""
    methods: dict[Method, type[Tokenizer]] = {"dst": DST, "rq_kmeans": RQKMeans, "rq_vae": RQVAE}
    return methods[config.method](config, text_dim, image_dim)
