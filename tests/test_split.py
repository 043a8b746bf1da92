"""Splits: exact, grouped, stratified, the same each time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionrec.dataset.prepare.split import Group, counts_of, split_groups
from fashionrec.errors import DataError


def made(sizes: list[int], classes: list[int] | None = None) -> list[Group]:
    groups, start = [], 0
    for n, size in enumerate(sizes):
        kind = (classes or [0])[n % len(classes or [0])]
        groups.append(Group(tuple(range(start, start + size)), Counter({kind: size})))
        start += size
    return groups


def filled(groups: list[Group], chosen: list[int]) -> list[int]:
    found = [0, 0, 0]
    for group, split in zip(groups, chosen, strict=True):
        found[split] += len(group)
    return found


@pytest.mark.parametrize("counts", [(4177, 400, 200), (1545, 150, 77)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_first_users_splits_are_exact(counts: tuple[int, int, int], size: int) -> None:
    """Also where no group is a single photo: 77 photos of threes and one pair."""
    total = sum(counts)
    sizes = [size] * (total // size) + ([total % size] if total % size else [])
    if size == 3:
        sizes = [2] * 20 + [3] * ((total - 40) // 3) + ([(total - 40) % 3] if (total - 40) % 3 else [])
    groups = made(sizes, [0, 1, 2, 3, 4])
    if size == 2 and any(count % 2 for count in counts[1:]) and 1 not in sizes:
        with pytest.raises(DataError, match="would separate photos that belong together"):
            split_groups(groups, counts, exact=True, seed=0)
        return
    assert filled(groups, split_groups(groups, counts, exact=True, seed=0)) == list(counts)


def test_every_class_has_its_share() -> None:
    """A rare class too: 20 photos of one thousand are 14, 3 and 3, where chance alone would often
    leave a split without.
    """
    groups = made([1] * 1000, [0] * 25 + [1] * 24 + [2])
    chosen = split_groups(groups, counts_of(1000, [0.7, 0.15, 0.15]), exact=True, seed=3)
    for kind in (0, 1, 2):
        members = [n for n, group in enumerate(groups) if kind in group.classes]
        shares = Counter(chosen[n] for n in members)
        for split, ratio in enumerate((0.7, 0.15, 0.15)):
            assert abs(shares[split] - ratio * len(members)) <= 1.5, (kind, split, shares)


def test_another_seed_is_another_split_and_the_same_seed_the_same() -> None:
    groups = made([1] * 60)
    first, again, other = (split_groups(groups, [40, 10, 10], exact=True, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_counts_that_do_not_add_up_say_how_many_photos_there_are() -> None:
    with pytest.raises(DataError, match="there are 60"):
        split_groups(made([1] * 60), [40, 10, 9], exact=True, seed=0)


def test_ratios_by_largest_remainder() -> None:
    assert counts_of(10, [0.7, 0.15, 0.15]) == [7, 2, 1]
    assert counts_of(0, [0.7, 0.15, 0.15]) == [0, 0, 0]
    with pytest.raises(DataError, match="add up"):
        counts_of(10, [0.7, 0.2, 0.2])


def possible(sizes: list[int], counts: list[int]) -> bool:
    """By trying everything: which (valid, test) sums can be had."""
    reached = {(0, 0)}
    for size in sizes:
        reached |= {(v + size, t) for v, t in reached} | {(v, t + size) for v, t in reached}
    return (counts[1], counts[2]) in reached


@settings(max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=14),
    shares=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4)),
    seed=st.integers(0, 5),
)
def test_no_group_is_broken_and_exact_means_exact(sizes: list[int], shares: tuple[float, float], seed: int) -> None:
    total = sum(sizes)
    valid, test = int(shares[0] * total), int(shares[1] * total)
    counts = [total - valid - test, valid, test]
    groups = made(sizes, [0, 1, 2])
    if possible(sizes, counts):
        assert filled(groups, split_groups(groups, counts, exact=True, seed=seed)) == counts
        return
    with pytest.raises(DataError, match="would separate photos that belong together"):
        split_groups(groups, counts, exact=True, seed=seed)
    assert sum(filled(groups, split_groups(groups, counts, exact=False, seed=seed))) == total


@pytest.mark.parametrize(
    ("sizes", "counts", "expected"),
    [
        # test, the larger one, takes all that is small first; valid could have had the three
        ([9, 1, 3], [6, 3, 4], [0, 2, 2]),
        # both want the one photo: valid has it first, and keeps it
        ([1, 2], [1, 1, 1], [1, 0]),
        # nothing gives valid two photos; test has its one all the same
        ([8, 1], [6, 2, 1], [0, 2]),
        # nothing gives test two photos; valid has its four, and not all that is there
        ([4, 4], [2, 4, 2], [0, 1]),
        # nothing gives either just what it wants; valid keeps the pair that it was dealt
        ([6, 2], [4, 3, 1], [0, 1]),
    ],
)
def test_where_groups_do_not_allow_it_train_takes_the_difference(
    sizes: list[int], counts: list[int], expected: list[int]
) -> None:
    assert split_groups(made(sizes), counts, exact=False, seed=0) == expected


def test_as_few_photos_as_possible_are_exchanged() -> None:
    """Two pairs are dealt to valid, which is to have five photos: one pair goes for the three, the
    other stays.
    """
    assert split_groups(made([2, 2, 2, 2, 3]), [6, 5, 0], exact=True, seed=0) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("times", [1, 100])
def test_what_an_exchange_leaves_unfilled_is_searched_for(times: int) -> None:
    """Valid, filled first, would take the one that is all that test can have; the two pairs do as
    well.
    """
    groups = made([times, 3 * times, 2 * times, 2 * times], [2, 1, 1, 1])
    assert split_groups(groups, [3 * times, 4 * times, times], exact=True, seed=0) == [2, 0, 1, 1]


def test_a_search_that_would_take_gigabytes_is_not_made() -> None:
    """The same with 9,200 and 2,300 photos: more than 20 million cells."""
    groups = made([2300, 6900, 4600, 4600], [2, 1, 1, 1])
    with pytest.raises(
        DataError, match="6900/9200/2300 would separate photos that belong together; the closest is 9200/9200/0"
    ):
        split_groups(groups, [6900, 9200, 2300], exact=True, seed=0)


@pytest.mark.parametrize(
    ("counts", "seed", "expected"),
    [
        ([29, 8, 4], 0, "21010100000002002110011200"),
        ([29, 8, 4], 7, "01000010000002000110111222"),
        ([20, 12, 9], 1, "02012110011001202121220120"),
        ([0, 20, 21], 1, "22211112111221121211112112"),
    ],
)
def test_a_split_stays_what_it_was(counts: list[int], seed: int, expected: str) -> None:
    """Fetched again by another version, a photo that was tested on is not trained on."""
    sizes = [1, 1, 3, 1, 2, 1, 1, 5, 1, 2, 1, 1, 4, 1, 1, 2, 1, 1, 1, 3, 1, 1, 2, 1, 1, 1]
    groups, start = [], 0
    for n, size in enumerate(sizes):
        classes = Counter({n % 3: size}) + Counter({3: n % 5 == 0, 4: 2 * (n % 11 == 3)})
        groups.append(Group(tuple(range(start, start + size)), Counter() if n == 8 else classes))
        start += size
    assert "".join(map(str, split_groups(groups, counts, exact=True, seed=seed))) == expected
