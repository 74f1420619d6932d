"""Which encoders make vectors of texts and pictures: models, or columns of vectors that exist already."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipeline.config.section import Section
from schemas.semantic_id import MODALITIES


class Encoder(Section):
    """One modality's encoder: ``builtin``, a Hugging Face name, or a local folder."""

    model: str = Field("builtin", description="builtin, a local folder, or a repository of the Hugging Face hub")
    revision: str | None = Field(None, description="branch, tag or commit of a Hugging Face model")
    trust_remote_code: bool = Field(False, description="run the model's own code; from the hub of one commit alone")
    pooling: Literal["auto", "mean", "cls"] = Field("auto", description="auto: what the model says of itself")
    batch_size: int = Field(64, ge=1, le=65_536, description="inputs of a call; decides speed and memory alone")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the model's numbers")


class TextEncoder(Encoder):
    """The encoder of texts: the keys of every encoder, and those that only texts have."""

    max_length: int = Field(256, ge=8, le=131_072, description="tokens; longer texts are cut, at the model's limit too")
    prompt: str | None = Field(None, description="put before every text; default: the model's own default, if any")
    truncate_dim: int | None = Field(
        None, ge=2, le=65_536, description="first numbers of a vector to keep, of models trained for that"
    )


class VectorColumn(Section):
    """One modality's vectors where others have made them: a column of the catalogue in place of an encoder.

    ``column`` holds arrays of numbers, or bytes with their ``dtype``, little-endian.
    """

    column: str = Field(min_length=1, description="the catalogue's column of vectors")
    name: str = Field(min_length=1, description="of what made the vectors")
    version: str = Field(
        min_length=1, coerce_numbers_to_str=True, description="of what made them: another one, and all are read anew"
    )
    dtype: Literal["float16", "float32", "float64"] | None = Field(None, description="of a column of bytes")
    dim: int | None = Field(None, ge=1, le=65_536, description="numbers of a vector; default: as those stored already")

    def fingerprint(self, modality: str) -> str:
        """The name that the vectors are stored under, 16 hexadecimal digits."""
        parts = (modality, "column", self.name, self.version, str(self.dtype))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _kind(section: Any) -> str:
    """Which of the two a section is: a column of vectors by the keys that an encoder does not have."""
    own = VectorColumn.model_fields.keys() - Encoder.model_fields.keys()
    is_column = isinstance(section, VectorColumn) or (isinstance(section, Mapping) and bool(own & section.keys()))
    return "column" if is_column else "model"


GivenVectors = Annotated[VectorColumn, Tag("column")]


class Encoders(Section):
    """The encoders of both modalities, each a model or a column of vectors, and how the work is spread."""

    text: Annotated[Annotated[TextEncoder, Tag("model")] | GivenVectors, Discriminator(_kind)] = TextEncoder()
    image: Annotated[Annotated[Encoder, Tag("model")] | GivenVectors, Discriminator(_kind)] = Encoder()
    workers: int | None = Field(None, ge=1, le=10_000, description="processes; default: one a GPU, else one a core")
    commit_rows: int = Field(100_000, ge=100, le=100_000_000, description="rows a commit; a killed job redoes one")

    @property
    def models(self) -> dict[str, Encoder]:
        """By modality the encoders that are models."""
        return {m: found for m in MODALITIES if isinstance(found := getattr(self, m), Encoder)}

    @property
    def vector_columns(self) -> dict[str, VectorColumn]:
        """By modality the columns of vectors."""
        return {m: found for m in MODALITIES if isinstance(found := getattr(self, m), VectorColumn)}
