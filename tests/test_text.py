"""The filter for terminals, JSON, tables, Markdown and command lines, over all of Unicode."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.common.text import (
    TableWriter,
    encodable,
    json_text,
    markdown_cell,
    plural,
    shell_word,
    table_cell,
    visible,
    visible_lines,
)

ANY = st.text(st.characters(exclude_categories=()), max_size=40)
#: Letters that a text may mix with what acts.
HOSTILE = st.text(
    st.sampled_from("a가 \x1b\x07\x9b\x7f\r\n\t\u202e\u2066\u200f\u061c\u200b\u200d\ufe0f\u0301\ud800\udc9b=+-@＝|'\\")
)
#: Visible although Unicode counts them among the format characters: signs that enclose or precede a
#: number.
SIGNS = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def acts(character: str) -> bool:
    """Return whether a character can move a cursor, reorder a line, hide, or not be
    written at all.
    """
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return True
    kept = {0x200C, 0x200D, *SIGNS}  # the joiners only in their place, see below
    return unicodedata.category(character) == "Cf" and ord(character) not in kept


def test_every_character_is_shown_or_escaped() -> None:
    for code in range(0x110000):
        character = chr(code)
        shown = visible(character)
        if acts(character):
            assert shown.isascii(), hex(code)
            assert shown.isprintable(), hex(code)
            assert shown.startswith("\\"), hex(code)
            assert visible_lines(character) == (character if character in "\n\t" else shown)
        elif unicodedata.category(character) in ("Ll", "Lu", "Lt", "Lm", "Nd", "Mc", "Sm", "Sc", "Sk", "Pd", "Zs"):
            assert shown == character, hex(code)


@given(st.one_of(ANY, HOSTILE))
def test_what_is_shown_never_acts_and_stays(text: str) -> None:
    shown = visible(text)
    assert not any(map(acts, re.sub("\U0001f3f4[\U000e0020-\U000e007f]{6}", "", shown)))
    assert visible(shown) == shown
    assert "\n" not in shown
    shown.encode()
    block = visible_lines(text)
    assert block.replace("\r", "").count("\n") == text.count("\n")
    assert visible_lines(block) == block


@pytest.mark.parametrize(
    "text",
    [
        "빨간 줄무늬 티셔츠",
        "\u1112\u1161\u11ab\u1100\u1173\u11af",  # decomposed, as macOS spells file names
        "فستان أحمر ١٢",
        "می\u200cخواهم",  # Persian joins with ZWNJ
        "שִׂמְחָ֑ה",
        "नमस्ते क्\u200dष",
        "ന\u0d4d\u200d",
        "น้ำ เสื้อ",
        "Tiếng Việt e\u0323\u0302",
        "👨\u200d👩\u200d👧\u200d👦 ❤\ufe0f\u200d🔥 👍🏽 🇰🇷 1\ufe0f\u20e3",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "葛\U000e0100城",
        "₩39,000 · 50% — naïve ﬁ½",
        r"C:\photos\new",
    ],
)
def test_honest_text_is_untouched(text: str) -> None:
    assert visible(text) == text
    assert json.loads(json_text(text)) == text
    assert text in json_text(text) or "\\" in text or "\U000e0067" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;cm0gLXJm\x07", r"\x1b]52;c;cm0gLXJm\x07"),
        ("\x9b2J", r"\x9b2J"),
        (os.fsdecode(b"caf\xe9\x9b"), r"caf\xe9\x9b"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("pay\u200bpal ad\u200dmin", r"pay\u200bpal ad\u200dmin"),
        ("x\U000e0041", r"x\U000e0041"),
        ("a\ufe0f\ufe0f", r"a\ufe0f\ufe0f"),
        ("😀\ufe0f\ufe0f", "😀\ufe0f" + r"\ufe0f"),
        ("가\u200d\u200d", "가\u200d" + r"\u200d"),
        ("x\u3164y\ufeff", r"x\u3164y\ufeff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_hidden_characters_are_named(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_marks_are_bounded() -> None:
    shown = visible("z" + "\u0335" * 1000 + "ก" + "\u0e47" * 1000)
    assert not re.search("[\u0335\u0e47]{9}", shown)
    assert shown.count(r"\u0335") == 992
    assert visible("שִׂ֑֙") == "שִׂ֑֙"


@given(
    st.recursive(
        st.one_of(ANY, HOSTILE, st.integers(), st.none()), lambda inner: st.dictionaries(ANY, inner), max_leaves=4
    )
)
def test_json_is_read_back_as_it_was(document: object) -> None:
    for ascii_only in (False, True):
        text = json_text(document, indent=2, ascii_only=ascii_only)
        raw = text.encode("ascii" if ascii_only else "utf-8")
        assert not any(acts(character) for character in raw.decode() if character != "\n")
        wanted = json.loads(json.dumps(document))  # JSON cannot tell a surrogate pair from one character, nor can we
        assert json.loads(raw) == wanted


def test_a_stored_document_has_no_lone_surrogates() -> None:
    text = json_text({"caf\udce9": "\udc9b\ud800😀"}, stored=True)
    assert json.loads(text) == {r"caf\xe9": r"\x9b\ud800" + "😀"}


@given(st.one_of(ANY, HOSTILE, st.from_regex(r"[\s;]*[=+\-@＝＋－＠﹣\u200b\ufeff]+[A-Za-z0-9]*", fullmatch=True)))
def test_no_cell_begins_a_formula(text: str) -> None:
    sink = io.StringIO()
    TableWriter(sink).writerow(["x", text])
    sink.getvalue().encode()
    ((_, cell),) = csv.reader(io.StringIO(sink.getvalue(), newline=""))
    for part in re.split("[;\t\r\n]", cell):
        bare = re.sub(
            r"^[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\xad\u061c]+", "", part
        )
        if bare and unicodedata.normalize("NFKC", bare[0])[0] in "=+-@":
            float(bare)  # a number: it cannot act
    acting = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
    shown = re.sub(acting, lambda found: visible(found[0]), encodable(text))
    assert cell.replace("'", "") == shown.replace("'", "")
    assert table_cell(table_cell(text)) == table_cell(text)


@pytest.mark.parametrize(
    "number", ["-3.5", "+7", "-0", "1e-05", "-1.2e+10", "-.5", "-inf", "nan", " -3", -3.5, 0, None, True]
)
def test_numbers_stay_numbers(number: object) -> None:
    assert table_cell(number) is number


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("-3+cmd|' /C calc'!A0", "'-3+cmd|' /C calc'!A0"),
        ("-3\n+cmd", "-3\n'+cmd"),
        ("\n=1", "'\n'=1"),
        ("  @SUM(A1)", "'  @SUM(A1)"),
        ("\u200b＝1", "'\u200b＝1"),
        ("a;=1", "a;'=1"),
        ("\tx", "'\tx"),
        ("－3", "'－3"),
        ("red-blue a=b", "red-blue a=b"),
    ],
)
def test_formulas_get_an_apostrophe(text: str, cell: str) -> None:
    assert table_cell(text) == cell


AWKWARD = (
    "$(id)",
    "`id`",
    "a b",
    "a  b",
    " a",
    "'",
    "'\x1b'",
    "-rf",
    "~",
    "!!",
    "=ls",
    "{a,b}",
    "*",
    "#",
    "\n;id",
    "x\u3000",
)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@pytest.mark.skipif(os.name == "nt", reason="bash")
def test_a_pasted_word_is_one_word_and_shows_all_of_itself() -> None:
    words: list[str] = []

    lone = re.compile("[\ud800-\udfff]")

    @given(st.one_of(WORDS, HOSTILE.map(lambda text: lone.sub("", text)), st.sampled_from(AWKWARD)))
    def collect(word: str) -> None:
        quoted = shell_word(word)
        assert visible(quoted) == quoted
        assert " ".join(quoted.split()) == quoted  # errors and their hints join white space
        words.append(word)

    collect()
    words.append("\udcff\x1b")
    script = "printf '%s\\0' " + " ".join(map(shell_word, words))
    done = subprocess.run(
        ["bash"], input=os.fsencode(script), capture_output=True, check=True, timeout=60, env={"LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_paths_do_not_become_options() -> None:
    assert shell_word(Path("-rf")) == "./-rf".replace("/", os.sep)
    assert shell_word(Path("data/catalogue")) == str(Path("data/catalogue"))


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("C:\\a b", '"C:\\a b"'), ("a&calc", '"…"'), ("$(id)", '"…"'), ("a\x1b", '"…"'), ("C:\\x", "C:\\x")],
)
def test_on_windows_what_cannot_be_quoted_is_not_named(word: str, quoted: str) -> None:
    assert shell_word(word, windows=True) == quoted


def test_markdown_cells_end_no_cell_and_make_no_html() -> None:
    assert markdown_cell("a|b\\|c\n<img src=x>&lt; [x](javascript:1) `id` a&b") == (
        "a\\|b\\\\\\|c\\\\n&lt;img src=x>&amp;lt; \\[x\\](javascript:1) \\`id\\` a&b"
    )


@pytest.mark.parametrize(
    "piece", ["-1", "1", "\x1b", "=", ";", " ", "\u202e", "\u0301", "가\u200d", "\n=", "'", "&", "|"]
)
def test_a_long_text_takes_no_longer_than_its_length(piece: str) -> None:
    text = "-" + piece * 50_000 + "x"
    start = time.process_time()
    for function in (visible, visible_lines, json_text, table_cell, shell_word, markdown_cell):
        function(text)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [(0, ("row",), "0 rows"), (1, ("row",), "1 row"), (1200, ("row",), "1,200 rows"), (2, ("box", "boxes"), "2 boxes")],
)
def test_a_count_has_the_right_form_of_its_noun(count: int, noun: tuple[str, ...], text: str) -> None:
    assert plural(count, *noun) == text
