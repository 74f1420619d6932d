"""Python loads this in every process of a job under test, workers too, and ``FAULT`` says what is to go wrong.

``FAULT`` is the JSON of a :class:`kills.Fault`: when the function ``at`` is called for the ``nth`` time in a process,
the victim is killed, ``before`` or ``after`` the call. Once: whoever makes the file ``mark`` strikes.
"""

import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys


def processes(kind):
    """The job's processes of a kind; the job's own process is the first that came here."""
    import psutil

    if kind == "self":
        return [psutil.Process()]
    if kind == "node":
        raylet = next(parent for parent in psutil.Process().parents() if parent.name() == "raylet")
        here = psutil.Process()
        return [raylet, *(process for process in raylet.children(recursive=True) if process != here), here]
    driver = psutil.Process(int(os.environ["FAULT_DRIVER"]))
    return [driver] if kind == "driver" else [p for p in driver.children(recursive=True) if p.name() == kind]


def strike(fault):
    """Kill the victim, unless somebody did."""
    import psutil

    try:
        os.close(os.open(fault["mark"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    victims = processes(fault["victim"])
    if not victims:
        raise SystemExit(f"there is no process {fault['victim']} to kill")
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    psutil.wait_procs(victims, timeout=60)


def deadly(function, fault):
    """``function``, which strikes at its nth call."""
    calls = 0

    @functools.wraps(function)
    def called(*arguments, **options):
        nonlocal calls
        calls += 1
        due = calls == fault["nth"] and (fault["victim"] != "driver" or os.environ["FAULT_DRIVER"] == str(os.getpid()))
        if due and fault["when"] == "before":
            strike(fault)
        result = function(*arguments, **options)
        if due and fault["when"] == "after":
            strike(fault)
        return result

    return called


class Poison(importlib.abc.MetaPathFinder):
    """Puts the deadly function in its place as soon as its module is imported."""

    def __init__(self, fault):
        self.fault = fault
        self.module, self.name = fault["at"].split(":")

    def find_spec(self, name, path, target=None):
        """Only ever for that one module."""
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_arm(module):
            run(module)
            *within, last = self.name.split(".")
            owner = functools.reduce(getattr, within, module)
            setattr(owner, last, deadly(getattr(owner, last), self.fault))

        spec.loader.exec_module = run_and_arm
        return spec


if "FAULT" in os.environ:
    os.environ.setdefault("FAULT_DRIVER", str(os.getpid()))
    sys.meta_path.insert(0, Poison(json.loads(os.environ["FAULT"])))
