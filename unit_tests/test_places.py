"""Where tools stand in a text that was edited since."""

from __future__ import annotations

import pytest

from langchain_thinnest._answer.places import AROUND, Place, around, find

ONE = "Let me look at the tide tables of the northern harbours for you now."
TWO = "They say that the water is highest shortly after noon on most of the days."


def place(text: str, offset: int, answer: int = 0) -> Place:
    return Place(answer, offset, *around(text, offset))


def test_in_the_text_as_it_was() -> None:
    at = ONE.index("tables")
    assert find(ONE, [place(ONE, at)], len(ONE)) == [at]
    # Also where the same words come twice: the offset is true.
    twice = "again and again " * 6
    assert find(twice, [place(twice, 48)], len(twice)) == [48]
    # Without its length the text may be another one: then nothing says which.
    assert find(twice, [place(twice, 48)], None) == [len(twice)]


def test_a_text_of_the_same_length_may_be_another_one() -> None:
    at = ONE.index("harbours")
    edited = ONE.replace("Let me", "I will").replace("look", "see ")
    assert len(edited) == len(ONE)
    assert find(edited, [place(ONE, at)], len(ONE)) == [edited.index("harbours")]


@pytest.mark.parametrize("added", ["", "Well. ", "A" * 100 + " "])
def test_by_both_sides(added: str) -> None:
    at = ONE.index("tables")
    assert find(added + ONE, [place(ONE, at)], len(ONE)) == [len(added) + at]


def test_by_one_side() -> None:
    text = f"{ONE} {TWO}"
    at = len(ONE) + 1
    behind_is_new = f"{ONE} Something else was said here, and nothing of the water."
    before_is_new = f"Something else was said before that. {TWO}"
    assert find(behind_is_new, [place(text, at)], len(text)) == [at]
    assert find(before_is_new, [place(text, at)], len(text)) == [before_is_new.index("They")]


@pytest.mark.parametrize("side", ["before", "after"])
def test_what_one_side_says_twice_says_nothing(side: str) -> None:
    text = f"{ONE} {TWO}"
    at = len(ONE) + 1
    kept = f"{ONE} " if side == "before" else TWO
    twice = f"{kept}, and so on. {kept}, it is said." if side == "before" else f"{kept} {kept}"
    assert find(twice, [place(text, at)], len(text)) == [len(twice)]


def test_few_letters_of_one_side_say_nothing() -> None:
    text = "It is so. " + TWO
    changed = "It is so. Nothing of that is left in this text of the same length as that one."
    assert find(changed, [place(text, 10)], len(text) + 1) == [10]  # ten letters do
    assert find("So it is, but", [place("is " + TWO, 3)], 5) == [13]


@pytest.mark.parametrize(
    ("text", "edited", "before"),
    [
        ("the harbour master", "the harbourmaster of old", "harbour"),  # one word by now
        ("cafe and more of it", "cafe\u0301 and what not, then", "cafe"),  # one letter by now
    ],
)
def test_no_word_is_cut(text: str, edited: str, before: str) -> None:
    at = text.index(before) + len(before)
    assert find(edited, [Place(0, at, "some " + text[:at], "")], None) == [len(edited)]
    assert find(edited, [Place(0, at, text[:at][-AROUND:], "")], None) == [len(edited)]


@pytest.mark.parametrize(
    "script",
    ["東京の天気を調べました結果は", "".join(chr(0xFF10 + n % 10) for n in range(12))],
)
def test_scripts_without_spaces_have_no_words_to_cut(script: str) -> None:
    at = len(script) // 2 + 2
    text = script[:at] + "別の話が続きます"
    assert find(text, [Place(0, at, script[:at], "消えた")], None) == [at]


def test_one_wide_letter_beside_a_narrow_one_is_inside_a_word() -> None:
    before = "京都大阪名古屋東京A"
    text = before + "都心部の話"
    assert find(text, [Place(0, len(before), before, "消えた")], None) == [len(text)]


def test_tools_of_one_place_and_of_the_next() -> None:
    at, later = ONE.index("tables"), ONE.index("harbours")
    places = [place(ONE, at), place(ONE, at), place(ONE, later)]
    assert find("So: " + ONE, places, len(ONE)) == [4 + at, 4 + at, 4 + later]


def test_no_tool_stands_before_the_one_that_came_before_it() -> None:
    at, later = ONE.index("tables"), ONE.index("harbours")
    moved = f"{ONE[later:]} {ONE[:later]}"
    found = find(moved, [place(ONE, at), place(ONE, later)], len(ONE))
    assert found[0] == moved.index("tables")
    assert found[1] >= found[0]


def test_a_result_of_a_lost_call_is_lost_too() -> None:
    at = ONE.index("tables")
    lost = Place(0, 5, "nothing of this is left", "nor of this, at all")
    result = Place(0, at, *around(ONE, at), opens=0)
    assert find(ONE + " ", [lost, result], len(ONE)) == [len(ONE) + 1] * 2


def test_answers_that_were_merged() -> None:
    """Each tool stands in its own answer, though both say the same."""
    merged = f"{ONE}\n{ONE}"
    at = ONE.index("tables")
    places = [place(ONE, at, 0), place(ONE, at, 1)]
    assert find(merged, places, None) == [at, len(ONE) + 1 + at]


def test_without_its_surroundings_only_the_first_answer_is_sure() -> None:
    first, second = Place(0, 4, None, ""), Place(1, 4, None, "")
    assert find("Let me look", [first, second], None) == [4, 11]
    assert find("Lettering", [first], None) == [9]  # inside a word
    assert find("Let", [first], None) == [3]


def test_there_may_be_no_tools() -> None:
    assert find(ONE, [], len(ONE)) == []
