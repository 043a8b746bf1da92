"""Find the tests that could notice a mutant, and the order in which to try them."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tests.mutate_map import Test, sources
from tests.mutate_places import Mutant


class Candidates:
    """Record of which tests could notice a mutant, in the order in which they are tried."""

    def __init__(self, root: Path, package: str, tests: Iterable[Test], unmapped: Iterable[str]) -> None:
        self.tests = [test for test in tests if test.passes]
        self.unmapped = {name: (root / name).read_text(encoding="utf-8") for name in unmapped}
        self.trees = {file: ast.parse(text) for file, text in sources(root, package).items()}
        self.by_file: dict[str, list[Test]] = {}
        for test in self.tests:
            for file in test.lines:
                self.by_file.setdefault(file, []).append(test)

    def reaching(self, file: str, lines: Iterable[int]) -> list[Test]:
        wanted = set(lines)
        return [test for test in self.by_file.get(file, []) if not wanted.isdisjoint(test.lines[file])]

    def of(self, mutant: Mutant) -> list[Test]:
        if mutant.in_function:
            found = self.reaching(mutant.file, mutant.lines)
        else:  # it ran when the module was imported: what matters is who reads the name
            found = [test for file, lines in self.readers(mutant.reader) for test in self.reaching(file, lines)]
            bodies = {line for lines in function_bodies(self.trees[mutant.file]) for line in lines}
            found += self.reaching(mutant.file, bodies)
        near = {test.file for test in self.tests if is_near(mutant.file, test.file)}
        if found:  # what a test of that name does may be hidden in a process that was not recorded
            found += [test for test in self.tests if test.file in near]
        module = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name, text in self.unmapped.items():
            if is_near(mutant.file, name) or module in text:
                found.append(Test(name, 10.0, 120.0, True))
        by_name = {test.name: test for test in found}
        return sorted(by_name.values(), key=lambda test: (not is_near(mutant.file, test.file), test.seconds, test.name))

    def readers(self, names: tuple[str, ...], depth: int = 3) -> list[tuple[str, set[int]]]:
        """The lines in functions that read one of these names, also by way of other names of a
        module.
        """
        wanted, done, found = set(names), set(), []
        for _ in range(depth):
            further: set[str] = set()
            for file, tree in self.trees.items():
                lines, bound = mentions(tree, wanted)
                found.append((file, lines))
                further |= bound
            done |= wanted
            wanted = further - done
            if not wanted:
                break
        return [(file, lines) for file, lines in found if lines]


def mentions(tree: ast.Module, names: set[str]) -> tuple[set[int], set[str]]:
    """Return where these names are read: lines in functions, and the names that modules bind by
    means of them.
    """
    lines: set[int] = set()
    bound: set[str] = set()

    def look(node: ast.AST, binding: tuple[str, ...], inside: bool) -> None:
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        if name in names and isinstance(getattr(node, "ctx", None), ast.Load):
            if inside:
                lines.add(node.lineno)  # type: ignore[attr-defined]
            else:
                bound.update(binding)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            body = node.body if isinstance(node.body, list) else [node.body]
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None and {getattr(part, "id", "") for part in ast.walk(default)} & names:
                    lines.update(range(body[0].lineno, (node.end_lineno or 0) + 1))
            for part in body:
                look(part, binding, True)
            return
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and not inside:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            binding = tuple(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
        for child in ast.iter_child_nodes(node):
            look(child, binding, inside)

    look(tree, (), False)
    return lines, bound


def function_bodies(tree: ast.Module) -> list[range]:
    return [
        range(node.body[0].lineno, (node.end_lineno or 0) + 1)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def is_near(file: str, test_file: str) -> bool:
    """Does the file of tests bear the module's name: test_batch, test_captioner_batch for
    captioner/batch.py?
    """
    path, words = Path(file), Path(test_file).stem.removeprefix("test_").split("_")
    module = (path.parent.name if path.stem == "__init__" else path.stem).strip("_").split("_")
    return any(words[n : n + len(module)] == module for n in range(len(words)))


def batch(waiting: list[Test], seconds: float, files: int) -> list[Test]:
    """The first tests of those that wait, at least one; each file's together, so that its fixtures
    are made once.
    """
    chosen: dict[str, list[Test]] = {}
    spent = 0.0
    for test in waiting:
        if chosen and (spent + test.seconds > seconds or (test.file not in chosen and len(chosen) >= files)):
            continue
        chosen.setdefault(test.file, []).append(test)
        spent += test.seconds
    return [test for of_file in chosen.values() for test in of_file]
