"""Rows of what every command takes: --config, --set, --debug and --quiet; --json stands in each
command's own rows.
"""

from __future__ import annotations

from pathlib import Path

from options.table import World, row

#: For each command, arguments with which it reads its settings and then ends at once, in an empty
#: folder.
BRIEF: dict[str, tuple[str, ...]] = {
    "fetch-dataset": ("yolo:none",),
    "dataset audit": ("none",),
    "dataset export": ("none", "--to", "coco", "--out", "o"),
    "train": (),
    "finetune": (),
    "runs list": (),
    "runs show": ("none",),
    "runs compare": ("none", "other"),
    "runs promote": ("none",),
    "runs demote": ("none",),
    "evaluate": ("--captions", "--index", "none"),
    "compare": (),
    "export": ("none", "--out", "o", "--precision", "int8"),
    "build-index": ("none",),
    "catalogue list": (),
    "catalogue show": (),
    "catalogue add": ("none",),
    "catalogue remove": ("none",),
    "catalogue update": ("none",),
    "catalogue verify": (),
    "catalogue rollback": (),
    "catalogue reindex": (),
    "catalogue compact": (),
    "catalogue export": ("o",),
    "catalogue import": ("none", "--index", "n"),
    "caption": ("--index", "none"),
    "query": ("none.jpg",),
    "demo": (),
    "doctor": (),
    "config show": (),
    "config schema": (),
}


def keep_demo_short(world: World) -> None:
    """A folder of runs that the demo refuses: it would train for minutes where its options are
    lost.
    """
    Path("full").mkdir()
    Path("full/file").write_text("")
    world.patch.setenv("FASHIONREC_PROJECT__RUNS", "full")


def add_rows(command: str, brief: tuple[str, ...]) -> None:
    @row(command, "--config", "--set", "--debug")
    def settings_reach_it(world: World) -> None:
        keep_demo_short(world)
        Path("wrong.yaml").write_text("nosection: {nokey: 1}\n")
        words = (*command.split(), *brief)
        by_file = world.run(*words, "--config", "wrong.yaml", code=2)
        assert "nosection" in by_file.err
        assert "Traceback" not in by_file.err
        by_word = world.run(*words, "--set", "other.thing=1", "--debug", code=2)
        assert "other.thing" in by_word.err
        assert "Traceback" in by_word.err

    @row(command, "--quiet")
    def quiet_keeps_it_to_errors(world: World) -> None:
        Path("finetune.yaml").write_text("finetune: {epochs: 3}\n")  # of which a message tells: it is not what is taken
        keep_demo_short(world)
        done = world.run(*command.split(), *brief, "--config", "finetune", "--quiet", code=None)
        assert [line for line in done.err.splitlines() if not line.startswith(("error: ", "hint: "))] == []


for name, arguments in BRIEF.items():
    add_rows(name, arguments)
