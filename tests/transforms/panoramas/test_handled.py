import shutil
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.panoramas.handled import MOST_NOTES, Handled, write_note
from transforms.storage.files import list_files

DIGESTS = st.integers(0, 99).map(lambda number: number.to_bytes(16, "big"))


@given(notes=st.lists(st.lists(DIGESTS, max_size=3), max_size=8), gone=st.sets(DIGESTS), tidy_at=st.integers(0, 8))
def test_what_is_noted_and_still_there_is_known_to_all(notes, gone, tidy_at):
    """Merging the notes, by whomever and whenever, forgets only files that are gone."""
    out = tempfile.mkdtemp()
    one = Handled(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.panoramas.handled.MOST_NOTES", 1)
        for place, note in enumerate(notes):
            write_note(out, [(digest, "/requests/a.jsonl") for digest in note])
            if place == tidy_at:
                one.refresh()
                one.tidy({digest for note in notes for digest in note} - gone)
    wanted = {digest for note in notes for digest in note}
    one.refresh()
    other = Handled(out)
    other.refresh()
    assert one.digests >= wanted - gone
    assert other.digests >= wanted - gone
    assert other.digests <= wanted
    shutil.rmtree(out)


def test_notes_stay_few(tmp_path):
    handled, there = Handled(str(tmp_path)), set()
    for number in range(4 * MOST_NOTES):
        digest = number.to_bytes(16, "big")
        there.add(digest)
        write_note(str(tmp_path), [(digest, f"/requests/{number}.jsonl")])
        handled.refresh()
        handled.tidy(there)
    assert len(list_files(str(tmp_path / "watched"))) <= MOST_NOTES + 1
    assert handled.digests == there


def test_damaged_notes_and_secrets(tmp_path):
    write_note(str(tmp_path), [(b"0" * 16, "https://user:secret@example.org/a b\n.jsonl"), (b"1" * 16, "odd-\udcff")])
    (tmp_path / "watched" / "1.txt").write_bytes(b"\xff\xfe nonsense\n\nzz a\n")
    (tmp_path / "watched" / "other.json").write_text("{}")
    handled = Handled(str(tmp_path))
    handled.refresh()
    assert handled.digests == {b"0" * 16, b"1" * 16}
    assert b"secret" not in b"".join(path.read_bytes() for path in (tmp_path / "watched").glob("0*.txt"))
