import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.storage.text import clean_text

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


@given(st.one_of(ANY_TEXT, st.binary()))
def test_cleaned_text_can_always_be_written_and_cleaning_it_again_changes_nothing(text):
    cleaned = clean_text(text)
    assert cleaned.encode().decode() == cleaned == clean_text(cleaned)


@given(st.text())
def test_text_that_is_clean_stays_as_it_is(text):
    assert clean_text(text) == clean_text(text.encode()) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Sunset \ud83dA", "Sunset \ufffdA"),
        ("caf\udce9.jpg", "caf\ufffd.jpg"),
        ("\ud83d\ude00", "😀"),
        (b"\xff", "\ufffd"),
    ],
)
def test_what_cannot_be_written_becomes_the_replacement_character(text, cleaned):
    assert clean_text(text) == cleaned
