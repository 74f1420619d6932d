"""An archive of the classes that Spark has Java load, so that a session starts in about half the time.

Without one Java reads, checks and links all of them anew in every process. It belongs to one Java and one set of JARs;
Java sees itself whether it fits, and does without where not. The means: JDK Enhancement Proposal 350, "Dynamic CDS
Archives".
"""

import sys
from pathlib import Path

ARCHIVE = Path(sys.prefix) / "share/hi-sam/spark-classes.jsa"
WRITE = "-XX:ArchiveClassesAtExit"
QUIET = "-Xlog:cds=off -Xlog:cds+dynamic=off"  # Java warns of an archive that does not fit, and of what it leaves out


def reading_options(beside: str = "") -> str:
    """What tells Java to read the archive of this installation: nothing where there is none, or where the options
    ``beside`` have Java write one, since it cannot do both."""
    return f'"-XX:SharedArchiveFile={ARCHIVE}" {QUIET}' if ARCHIVE.is_file() and WRITE not in beside else ""


def writing_options(archive: Path) -> str:
    """What tells Java to write an archive when it ends."""
    return f'"{WRITE}={archive}" {QUIET}'
