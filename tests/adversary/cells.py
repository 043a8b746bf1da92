"""One cell: a root, a place in it, what is planted there, and a command; and what is wrong with
what the command did.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adversary.commands import ROWS, Row
from adversary.home import SECRET, Watch, canary_state, differences, tree_state
from adversary.plants import PLANTS, Plant, fits, plant, uproot
from adversary.process import Outcome, Sabotage
from adversary.project import CATALOGUE, STAGING, World

#: Files that a command may make or touch although it refuses: they hold nothing.
_LOCKS = re.compile(r"(^|/)\.[^/]*lock$")
#: Processes that libraries start to learn what machine this is: `platform.processor`,
#: `ctypes.util.find_library`.
_OWN_PROCESSES = re.compile(r"\b(ldconfig|gcc|uname|lscpu|objdump|ld)\b")
#: Longer than that is a hang, however busy the machine: seconds.
SECONDS = 15
PID = "{pid}"


@dataclass(frozen=True)
class Place:
    """``root`` is the kind of folder, ``folder`` where it is in the project, ``name`` the place in
    it, relative.
    """

    root: str
    folder: str
    name: str
    kind: str  # file, folder, or new

    def path(self, world: World, pid: int | str = PID) -> Path:
        return world.project / self.folder / self.name.replace(PID, str(pid))


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    place: Place
    plant: str
    row: Row
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.place.folder}/{self.place.name} | {self.plant} | {self.row.text} | {self.kind}: {self.detail}"


Cell = tuple[Place, Plant, Row]


def cells(places: Iterable[Place], heavy: bool = False) -> Iterator[Cell]:
    for place in places:
        for what in PLANTS:
            if fits(what, place.kind):
                for row in ROWS[place.root]:
                    if heavy or not row.heavy:
                        yield place, what, row


def check(world: World, cell: Cell, sabotage: Sabotage | None = None) -> list[Finding]:
    """Plant, run the command, and say what is wrong. The project is as it was afterwards."""
    place, what, row = cell
    planted: list[Path] = []

    def put(pid: int) -> None:
        path = place.path(world, pid)
        plant(what, path, world.home)
        planted.append(path)

    if place.root == "staging":
        shutil.copytree(world.staging, world.project / STAGING)
    early = PID not in place.name
    if early:
        put(0)
    else:
        (world.home / "elsewhere").mkdir(exist_ok=True)
    outside = canary_state(world.home, world.ours)
    inside = tree_state(world.project)
    seen: list[tuple[Path, str]] = []
    watch = Watch(world.home, world.ours)

    def begin(pid: int) -> None:
        nonlocal outside, inside
        if not early:
            put(pid)
            outside = canary_state(world.home, world.ours)
            inside = tree_state(world.project)
        watch.__enter__()

    env = {**world.env, "OPENAI_API_KEY": "sk-local"} if row.paid else world.env
    ended = world.run(
        *row.words, before=begin, sabotage=sabotage, env=env, timeout=8 * SECONDS if row.heavy else SECONDS
    )
    seen = watch.events()
    watch.__exit__()
    wrong = list(_judge(world, cell, ended, seen, planted[0]))
    wrong += [("the home changed", change) for change in differences(outside, canary_state(world.home, world.ours))]
    after = tree_state(world.project)
    changes = [change for change in differences(inside, after) if not _LOCKS.search(change.split(" ")[0])]
    if not what.refused:  # what of a new generation is left behind is removed by the next writer
        changes = [change for change in changes if not change.endswith(" is new")]
    if ended.code == 2 and changes:
        wrong.append(("changed by a refused command", "; ".join(changes[:4])))
    touched = sorted(name for name in inside.keys() | after.keys() if inside.get(name) != after.get(name))
    written = [world.project / name for name in touched if name in after]
    for path in (*written, world.scratch / "stdout", world.scratch / "stderr"):
        if path.is_file() and not path.is_symlink() and SECRET in path.read_bytes():
            wrong.append(("a canary's content got out", str(path)))
    uproot(world.home)
    world.restore({*map(world.top, touched), world.top(planted[0].relative_to(world.project).as_posix())})
    if place.root == "staging":
        world.restore({STAGING, "data/.n.lock"})
    if row.paid:
        world.restore_cache()
    return [Finding(place, what.name, row, kind, detail) for kind, detail in wrong]


def unexpected(ended: Outcome) -> Iterator[tuple[str, str]]:
    """Return what the audit hook saw that no command does by itself."""
    for event, detail in ended.audited:
        ours = event == "socket.connect" and "127.0.0.1" in detail
        ours = ours or (event in ("subprocess.Popen", "os.exec", "os.posix_spawn") and _OWN_PROCESSES.search(detail))
        if not ours and event != "pickle.find_class":
            yield event, detail


def _judge(
    world: World, cell: Cell, ended: Outcome, seen: list[tuple[Path, str]], planted: Path
) -> Iterator[tuple[str, str]]:
    place, what, row = cell
    said = ended.out + ended.err
    for path, word in seen:
        if path != world.home / "work":
            yield "a canary was touched", f"{path.relative_to(world.home)} {word}"
    for event, detail in unexpected(ended):
        yield "the audit hook saw", f"{event} {detail}"
    if ended.code is None:
        yield "it does not end", f"{ended.seconds:.0f} s; {said[-200:]}"
        return
    if ended.code not in (0, 1, 2, 3, 75):
        yield "exit code", str(ended.code)
    if "Traceback" in said or "this should not happen" in said:
        yield "a bug", said.strip()[-300:]
        return
    errors = [line for line in ended.err.splitlines() if line.startswith("error:")]
    if (ended.code != 0) != (len(errors) == 1):
        yield "not one line of error", f"exit {ended.code}, {len(errors)} lines: {ended.err.strip()[-200:]}"
    refuses = what.refused and place.root != "dataset"
    if not refuses:
        return
    if row.name == "catalogue list" or row.text == f"doctor --index {CATALOGUE}":
        if place.path(world).name not in said and planted.name not in said:
            yield "not named", said.strip()[-200:]
    elif row.name == "compare" and ended.code == 3:  # the others would be compared without it
        if planted.name not in said:
            yield "not named", said.strip()[-200:]
    elif ended.code == 0:
        yield "accepted", said.strip()[-100:]
    elif ended.code != 2:
        yield "refused with another code", f"exit {ended.code}: {errors[:1]}"
    elif planted.name not in " ".join(errors):
        yield "refused, but not by name", str(errors[:1])
