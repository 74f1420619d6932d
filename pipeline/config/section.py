"""What every section of the configuration is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and closed to keys that it does not declare."""

    model_config = ConfigDict(frozen=True, extra="forbid")
