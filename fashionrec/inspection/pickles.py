"""List the globals of a pickle without unpickling it: instructions are read, none is executed.

https://docs.python.org/3/library/pickletools.html. A pickle can call any global it names, so each
global that is not a layer, tensor or plain data of a checkpoint is suspicious.
"""

from __future__ import annotations

import ast
import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

#: A checkpoint of 500 layers has a pickle of 300 kB with 60,000 instructions.
MAX_PICKLE = 64 << 20
_MOST_PICKLES = 16  # one after the other, as in files of torch before 1.6
_MOST_MEMBERS = 100_000

_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_OLD_PICKLE = re.compile(rb"[(\]}lcdISVFLN]")
_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".cache", ".ckpt", ".joblib")
#: Magic bytes of ``.npy`` files, and the name of the pickle behind the header.
ARRAY = b"\x93NUMPY"
MAX_HEADER = 1 << 16  # bytes; numpy writes about a hundred, more only for many named fields
OBJECTS = "an array of Python objects"
_STRINGS = ("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")
#: Globals that the checkpoint loaders allow (:mod:`fashionrec.detector.training.pickles`, which
#: needs torch), by name.
_DATA = frozenset(
    """
    _codecs.encode builtins.bytearray builtins.complex builtins.set builtins.getattr collections.Counter
    collections.OrderedDict numpy.dtype numpy.core.multiarray.scalar numpy._core.multiarray.scalar
    pathlib.PosixPath pathlib.WindowsPath pathlib._local.PosixPath pathlib._local.WindowsPath
    torch.Size torch.Tensor torch.device torch._tensor._rebuild_from_type_v2 torch.nn.parameter.Parameter
    torch.serialization._get_layout torch.storage.TypedStorage torch.storage.UntypedStorage
    ultralytics.utils.IterableSimpleNamespace ultralytics.yolo.utils.IterableSimpleNamespace
    """.split()
)
_MODEL_PARTS = re.compile(
    r"torch\._utils\._rebuild_\w+|torch(\.cuda|\.sparse)?\.[A-Z]\w*(Storage|Tensor)"
    r"|torch\.(q?u?int\d+\w*|b?float\d+\w*|bool|b?complex\d+|per_(tensor|channel)_\w+)"
    r"|(torch\.nn\.modules|ultralytics\.nn\.modules)(\.\w+)*\.[A-Z]\w*"
    r"|ultralytics\.(nn\.tasks|nn\.distill_model|utils\.loss|utils\.tal)\.(v8|v10|[A-Z])\w*"
)
#: For each instruction: whether it pops everything to the last mark, how many values below that it
#: pops, and how many it pushes.
_EFFECTS = {
    opcode.name: (
        pickletools.markobject in opcode.stack_before,
        opcode.stack_before.index(pickletools.markobject)
        if pickletools.markobject in opcode.stack_before
        else len(opcode.stack_before),
        len(opcode.stack_after),
    )
    for opcode in pickletools.opcodes
}
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class UnreadablePickle(Exception):
    """A pickle that is damaged or exceeds the limits."""


@dataclass
class Budget:
    """Budget for all pickles of one folder: instructions read, and bytes unpacked from archives."""

    instructions: int = 5_000_000
    unpacked: int = 256 << 20

    def spend(self, *, instructions: int = 0, unpacked: int = 0) -> None:
        """Raise :class:`UnreadablePickle` if the budget is exhausted."""
        self.instructions -= instructions
        self.unpacked -= unpacked
        if self.instructions < 0 or self.unpacked < 0:
            raise UnreadablePickle("too many pickles in this folder to check")


def is_pickle(head: bytes) -> bool:
    """Return whether a file begins like a pickle of protocol 2 or newer."""
    return bool(_PICKLE.match(head))


def may_be_pickle(head: bytes, suffix: str) -> bool:
    """Return whether a file could be a pickle of protocol 0 or 1, which have no magic bytes."""
    return suffix in _SUFFIXES and bool(_OLD_PICKLE.match(head))


def foreign_globals(file: IO[bytes], budget: Budget) -> list[str]:
    """Return the unknown globals of a stream of pickles, sorted. Raises
    :class:`UnreadablePickle`.
    """
    data = io.BytesIO(file.read(MAX_PICKLE))
    found: set[str] = set()
    for n in range(_MOST_PICKLES):
        if n and not _PICKLE.match(data.read(2)):  # the first two bytes of a pickle contain no global
            break
        found.update(name for name in _globals(data, budget) if not is_known(name))
    return sorted(found)


def is_known(name: str) -> bool:
    """Return whether a global is a layer, a tensor or plain data."""
    return name in _DATA or bool(_MODEL_PARTS.fullmatch(name))


def archive_globals(
    file: IO[bytes], budget: Budget, *, max_members: int = _MOST_MEMBERS, max_pickle: int = MAX_PICKLE
) -> tuple[list[str], list[str]]:
    """Return the unknown globals of the pickles in a zip archive (``.pt``, ``.npz``), and its
    members that are programs.

    Raises :class:`UnreadablePickle`, also for more than ``max_members``, or a ``.pkl`` of more than
    ``max_pickle`` bytes.
    """
    found: set[str] = set()
    programs: list[str] = []
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > max_members:
                raise UnreadablePickle(f"it has {len(members):,} members")
            for member in members:
                if "/code/" in member.filename and member.filename.endswith(".py"):
                    programs.append(member.filename)
                else:
                    found.update(_member_globals(archive, member, budget, max_pickle))
    except UnreadablePickle:
        raise
    except Exception as error:  # a damaged archive may fail in any way
        raise UnreadablePickle(" ".join(str(error).split())[:160] or type(error).__name__) from None
    return sorted(found), programs


def _member_globals(archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: Budget, max_pickle: int) -> list[str]:
    suffix = PurePosixPath(member.filename).suffix
    with archive.open(member) as content:
        head = content.read(4096)
        budget.spend(unpacked=len(head))
        if head.startswith(ARRAY):
            content.seek(0)
            objects = holds_objects(content)
            budget.spend(unpacked=max(0, content.tell() - len(head)))
            return [OBJECTS] if objects else []
        sure = suffix == ".pkl"
        if not (sure or is_pickle(head) or may_be_pickle(head, suffix)):
            return []
        data = head + content.read(max_pickle + 1 - len(head))
    budget.spend(unpacked=len(data))
    if sure and len(data) > max_pickle:
        raise UnreadablePickle(f"{member.filename} has more than {max_pickle:,} bytes")
    try:
        return foreign_globals(io.BytesIO(data), budget)
    except UnreadablePickle:
        if sure or budget.instructions < 0:
            raise
        return []  # a tensor whose bytes begin like a pickle


def holds_objects(file: IO[bytes]) -> bool:
    """Return whether a ``.npy`` array, read from its start, contains Python objects, which are a
    pickle behind its header.

    A header that numpy would not understand counts as well.
    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    start = file.read(12)
    short = start[6:7] == b"\x01"  # format 1.0 has two bytes for the header's length, later ones four
    length = int.from_bytes(start[8 : 10 if short else 12], "little")
    header = start[10 if short else 12 :] + file.read(min(length, MAX_HEADER + 1) - (2 if short else 0))
    try:
        return length > MAX_HEADER or _has_objects(ast.literal_eval(header.decode("latin-1").strip())["descr"])
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError):
        return True


def _has_objects(descr: Any) -> bool:
    """Return whether a numpy dtype in a header is or contains ``O``: a name, fields, or a type with
    a shape.
    """
    if isinstance(descr, list):
        return any(_has_objects(field[1]) for field in descr)
    return _has_objects(descr[0]) if isinstance(descr, tuple) else "O" in descr


def _globals(file: IO[bytes], budget: Budget) -> Iterator[str]:
    """Yield every global of one pickle. The stack is tracked far enough to know the strings that
    name one.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    marks: list[int] = []
    try:
        for opcode, argument, _ in pickletools.genops(file):
            budget.spend(instructions=1)
            name = opcode.name
            if name in ("GLOBAL", "INST"):
                yield _joined(*str(argument).split(" ", 1))
            elif name == "STACK_GLOBAL":
                module, attribute = stack[-2:]
                known = isinstance(module, str) and isinstance(attribute, str)
                yield _joined(module, attribute) if known else "a global with a computed name"
            elif name in ("EXT1", "EXT2", "EXT4"):
                yield f"copyreg extension {argument}"
            _step(opcode, argument, stack, memo, marks)
    except UnreadablePickle:
        raise
    except (ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError, EOFError) as error:
        raise UnreadablePickle(" ".join(str(error).split())[:160] or "invalid instructions") from None


def _step(opcode: Any, argument: Any, stack: list[Any], memo: dict[int, Any], marks: list[int]) -> None:
    name = opcode.name
    if name == "MARK":
        marks.append(len(stack))
        return
    if name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
        return
    if name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
        return
    if name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
        return
    if name == "DUP":
        stack.append(stack[-1])
        return
    to_mark, below, pushed = _EFFECTS[name]
    if to_mark or (name == "POP" and marks and marks[-1] == len(stack)):
        del stack[marks.pop() :]
        below = below if to_mark else 0
    if below > len(stack):
        raise UnreadablePickle("invalid instructions")
    if below:
        del stack[-below:]
    if name in _STRINGS:
        stack.append(argument)
    else:
        stack.extend([None] * pushed)


def _joined(module: str, name: str) -> str:
    return f"{_RENAMED.get(module, module)}.{name}"
