"""Figures of a training for TensorBoard, one of each kind a pass."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from pyarrow import fs

from pipeline.lake.run import Run
from pipeline.on_ray.training.runs import Progress

FOLDER = "tensorboard"


@contextmanager
def tensorboard(run: Run, progress: Progress | None) -> Iterator[Progress]:
    """``progress`` that also writes what it is told of every pass to ``LAKE/tensorboard/RUN_ID/JOB``.

    The driver writes it, as the passes end; for a lake in an object store it does so in a temporary folder, which is
    uploaded when the training ends, however it does.
    """
    from tensorboardX import SummaryWriter  # here, since it is slow to import

    relative = f"{FOLDER}/{run.run_id}/{run.job}"
    local = isinstance(run.lake.filesystem, fs.LocalFileSystem)
    beside: AbstractContextManager[str | None] = nullcontext() if local else tempfile.TemporaryDirectory()
    with beside as temporary:
        folder = temporary or run.lake.path(relative)
        try:
            with SummaryWriter(folder) as writer:

                def told(done: float, total: int, figures: dict[str, float]) -> None:
                    if "learning_rate" in figures:  # within a pass none is told
                        for name, value in figures.items():
                            writer.add_scalar(name, value, round(done))
                        writer.flush()
                    if progress is not None:
                        progress(done, total, figures)

                yield told
        finally:
            if temporary:
                run.lake.upload(Path(temporary), relative)
