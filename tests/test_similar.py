"""Perceptual hashes: what they do not mind, what they tell apart; groups against the plain
definition.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from planted import pixels

from fashionrec.config import load_config
from fashionrec.dataset.prepare.near import near_links
from fashionrec.dataset.prepare.similar import HASH_BYTES, NO_HASH, groups, photo_hash

SIZE = (320, 240)
SEEDS = range(100, 130)


@pytest.fixture(scope="module")
def limit() -> int:
    return load_config(env={}).config.dataset.near_duplicates


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def hashes(*rows: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, HASH_BYTES)


def recoded(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


CHANGES = {
    "compressed": lambda p: recoded(p, 60),
    "smaller": lambda p: p.resize((SIZE[0] * 6 // 10, SIZE[1] * 6 // 10)),
    "stretched": lambda p: p.resize((200, 200)),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.9),
    "all of it": lambda p: recoded(ImageEnhance.Brightness(p.resize((192, 144))).enhance(1.1), 60),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_near(change: str, limit: int) -> None:
    for seed in SEEDS:
        picture = pixels(seed, SIZE)
        assert distance(photo_hash(picture), photo_hash(CHANGES[change](picture))) <= limit, seed


def test_other_pictures_are_far(limit: int) -> None:
    assert list(near_links(hashes(*(photo_hash(pixels(seed, SIZE)) for seed in SEEDS)), 2 * limit)) == []


def test_the_hash_is_the_sign_of_the_cosine_transform_about_its_median() -> None:
    picture = pixels(1, (64, 64))
    grey = np.asarray(picture.convert("L"), float)
    k, x = np.arange(16), np.arange(64)
    low = np.array(
        [
            [
                sum(grey[j] @ np.cos(np.pi * v * (2 * x + 1) / 128) * np.cos(np.pi * u * (2 * j + 1) / 128) for j in x)
                for v in k
            ]
            for u in k
        ]
    )
    bits = np.unpackbits(np.frombuffer(photo_hash(picture), np.uint8)).reshape(16, 16).astype(bool)
    assert np.array_equal(bits, low > np.median(low))
    assert bits.sum() == 128


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_picture_of_one_colour_has_no_hash_and_is_near_to_none(colour: int) -> None:
    flat = Image.new("RGB", (90, 60), (colour,) * 3)
    assert photo_hash(flat) == NO_HASH
    assert photo_hash(recoded(flat, 50)) == NO_HASH
    assert list(near_links(hashes(NO_HASH, NO_HASH, photo_hash(pixels(1))), 256)) == []


@given(count=st.integers(1, 30), data=st.data())
def test_groups_are_what_pairs_connect(count: int, data: st.DataObject) -> None:
    number = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(number, number), max_size=40))
    found = groups(count, pairs)
    assert sorted(n for group in found for n in group) == list(range(count))
    assert all(group == sorted(group) for group in found)
    assert [group[0] for group in found] == sorted(group[0] for group in found)
    reach = np.eye(count, dtype=bool)
    for one, other in pairs:
        reach[one, other] = reach[other, one] = True
    for n in range(count):
        reach |= np.outer(reach[:, n], reach[n])
    of = {n: group for group in found for n in group}
    assert all(reach[i, j] == (of[i] is of[j]) for i in range(count) for j in range(count))
