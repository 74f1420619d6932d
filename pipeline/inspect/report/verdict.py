"""Whether to release tonight's IDs: the answer on top of the page, its reasons, and what to do."""

from typing import Any

from pipeline.errors import first_line
from pipeline.inspect.report.costs import NIGHT
from pipeline.inspect.report.subject import Subject
from pipeline.release.pointer import held_releases


def verdict(about: Subject, found: dict[str, Any]) -> dict[str, Any]:
    """``state`` (release, look, hold, standing or held), a ``headline``, ``reasons`` of a ``weight`` each (good, warn,
    bad), and ``todo``, commands with what they are for.

    Args:
        about: the subject.
        found: the sections ``gates``, ``changes``, ``quarantine`` and ``costs``.
    """
    changed, release = found["changes"], about.release
    refusing = [gate for gate in found["gates"]["gates"] if not gate["ok"]]
    blind = release is not None and about.standing is None
    held = _held(about) if changed["pending"] else None
    if not changed["pending"] and release is not None:
        state, headline = "standing", f"Readers have it all, as release {release.version}"
    elif refusing or blind:
        state = "hold"
        headline = (
            f"Do not release: {_count(len(refusing), 'gate refuses', 'gates refuse')}"
            if refusing
            else ("Do not release yet: the standing release cannot be read, so nothing can be compared with it")
        )
    elif held is not None:
        state, headline = "held", f"Held: these are the IDs of release {held}, which was rolled back"
    elif failed := _failed(found["costs"]):
        state, headline = "look", f"Look first: every gate holds, but the last {next(iter(failed))} failed"
    else:
        state = "release"
        headline = "Ready to release: every gate holds" + ("" if release else "; it is the first release")
    return {
        "state": state,
        "headline": headline,
        "reasons": [*_of_gates(found["gates"]["gates"]), *_of_items(about, found), *_of_runs(found["costs"])],
        "todo": _todo(state, about, found),
    }


def nothing(live: bool, found: dict[str, Any]) -> dict[str, Any]:
    """The verdict where no current item has an ID."""
    todo = [("hisam nightly", "makes IDs of what was extracted" if live else "takes the catalogue in and makes IDs")]
    reasons = _of_runs(found["costs"])
    return {"state": "nothing", "headline": "There are no IDs to release yet", "reasons": reasons, "todo": todo}


def _of_gates(gates: list[dict[str, Any]]) -> list[dict[str, str]]:
    bad = [gate for gate in gates if not gate["ok"]]
    near = [gate for gate in gates if gate["near"]]
    said = [
        _reason("bad", f"{g['name']} refuses: {g['figure']:.4g}, limit {g['limit']:.4g} ({g['meaning']})") for g in bad
    ]
    said += [
        _reason("warn", f"{g['name']} is near its limit: {g['figure']:.4g} of {g['limit']:.4g} ({g['meaning']})")
        for g in near
    ]
    if not bad:
        said.append(_reason("good", f"all {len(gates)} gates hold" + ("" if near else ", none of them narrowly")))
    return said


def _of_items(about: Subject, found: dict[str, Any]) -> list[dict[str, str]]:
    said, changed = [], found["changes"]
    kinds = {kind["kind"]: kind["items"] for kind in changed["kinds"]}
    news = (
        f"{kinds['added']:,} items come, {kinds['removed']:,} go, {kinds['codes']:,} get other codes, "
        f"{kinds['content']:,} keep their codes under new content"
    )
    if changed["pending"]:
        said.append(_reason("good", news))
    if changed["other_tokenizer"] and about.release is not None:
        told = f"release {about.release.version} is of {about.release.tokenizer}: its codes mean nothing under this one"
        said.append(_reason("warn", f"the IDs are of another tokenizer, {about.tokenizer}; {told}"))
    if waiting := about.live_items - about.totals.items:
        said.append(_reason("warn", f"{waiting:,} of {about.live_items:,} items have no ID and would not be released"))
    if quarantined := found["quarantine"]["items"]:
        reasons = ", ".join(f"{each['items']:,} {each['reason']}" for each in found["quarantine"]["reasons"])
        said.append(_reason("warn", f"{_count(quarantined, 'fault is', 'faults are')} in quarantine: {reasons}"))
    return said


def _of_runs(costs: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [_reason("bad", f"the last {job} failed: {_cut(error)}") for job, error in _failed(costs).items()]


def _failed(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """The errors of the night's jobs whose newest run failed."""
    newest = {each["job"]: each["runs"][-1] for each in costs}
    return {job: newest[job]["error"] for job in NIGHT if job in newest and newest[job]["status"] != "done"}


def _todo(state: str, about: Subject, found: dict[str, Any]) -> list[tuple[str, str]]:
    publish = f"hisam publish --tokenizer {about.tokenizer}"
    commands = {
        "release": [(publish, "releases these IDs")],
        "look": [("hisam nightly", "goes on where it failed"), (publish, "releases the IDs that there are")],
        "hold": [
            ("hisam explain ITEM", "shows where an item's codes came from"),
            (f"{publish} --force", "releases them all the same, which is recorded"),
        ],
        "held": [(f"{publish} --force", "releases what was rolled back from")],
        "standing": [("hisam rollback", "gives readers back what they had before")],
    }
    return commands[state] if state != "standing" or found["changes"]["since"] else []


def _held(about: Subject) -> int | None:
    """The release that was rolled back from and whose rows these are."""
    held = [release for release in held_releases(about.lake) if release.tokenizer == about.tokenizer]
    if not held:
        return None
    name = about.totals.digest(about.tokenizer)
    return next((release.version for release in held if release.digest == name), None)


def _reason(weight: str, text: str) -> dict[str, str]:
    return {"weight": weight, "text": text}


def _count(n: int, one: str, more: str) -> str:
    return f"{n:,} {one if n == 1 else more}"


def _cut(error: Any) -> str:
    line = first_line(Exception(error or "no reason was recorded"))
    return line if len(line) <= 300 else f"{line[:299]}…"
