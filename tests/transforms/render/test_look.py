import dataclasses
import errno
import time

import pytest
from fsspec.implementations.local import LocalFileSystem

from transforms.panoramas.handled import write_note
from transforms.render import look
from transforms.render.arrived import ReadArrived
from transforms.render.look import Looked, Looker, Watched, begin_watch
from transforms.storage import retry
from transforms.storage.fence import StaleRunError


@pytest.fixture
def watched(tmp_path):
    (tmp_path / "in").mkdir()
    watched = Watched(str(tmp_path / "in"), str(tmp_path / "out"))
    begin_watch(watched)
    return watched


def write(watched, name, text="{}"):
    with open(f"{watched.place}/{name}", "w") as file:
        file.write(text)


def look_twice(looker, looked):
    return [arrived.file.name for _ in range(2) for arrived in looker.look(looked)]


def test_a_file_is_found_once_and_again_only_if_it_is_replaced(watched):
    write(watched, "a.jsonl")
    looker, looked = Looker(watched), Looked()
    assert look_twice(looker, looked) == ["a.jsonl"]
    assert look_twice(looker, looked) == []
    write(watched, "a.jsonl", "{ }")
    assert look_twice(looker, looked) == ["a.jsonl"]


def test_a_watch_ends_when_another_begins(watched):
    looker = Looker(watched)
    looker.look(Looked())
    begin_watch(Watched(watched.place, watched.out))
    with pytest.raises(StaleRunError, match="was replaced by run"):
        looker.look(Looked())


def test_another_watch_finds_what_is_not_noted(watched):
    for name in ("a.csv", "b.parquet", "c.jsonl"):
        write(watched, name)
    looker, looked = Looker(watched), Looked()
    looker.look(looked)
    found = looker.look(looked)
    write_note(watched.out, [(found[0].digest, found[0].file.url)])
    assert look_twice(Looker(watched), Looked()) == ["b.parquet", "c.jsonl"]
    looker.look(looked)
    assert looked.open == {arrived.digest for arrived in found[1:]}


def test_a_thousand_files_at_once_are_taken_a_part_at_a_time(watched, monkeypatch):
    monkeypatch.setattr(look, "MOST_OPEN", 100)
    names = [f"{number:04d}.jsonl" for number in range(1000)]
    for name in names:
        write(watched, name)
    looker, looked, taken = Looker(watched), Looked(), []
    for _ in range(30):
        found = looker.look(looked, 60)
        assert len(found) <= 60
        assert len(looked.open) <= 100
        write_note(watched.out, [(arrived.digest, arrived.file.url) for arrived in found])
        taken += [arrived.file.name for arrived in found]
    assert sorted(taken) == names


def test_files_of_one_name_in_several_folders_have_names_of_their_own(watched, tmp_path):
    for day in ("day-1", "day-2"):
        (tmp_path / "in" / day).mkdir()
        write(watched, f"{day}/requests.jsonl")
    for place in (watched.place, f"{watched.place}/day-*/*"):
        looker, looked = Looker(dataclasses.replace(watched, place=place)), Looked()
        looker.look(looked)
        names = [arrived.file.place(3) for arrived in looker.look(looked)]
        assert names == ["day-1/requests.jsonl, request 3", "day-2/requests.jsonl, request 3"]


def test_a_listing_that_fails_is_tried_again(watched, monkeypatch, capsys):
    write(watched, "a.jsonl")
    looker, looked = Looker(watched), Looked()
    with monkeypatch.context() as patch:
        patch.setattr(look, "list_arrivals", lambda *_: 1 / 0)
        assert look_twice(looker, looked) == []
    assert "cannot be listed" in capsys.readouterr().err
    assert look_twice(looker, looked) == ["a.jsonl"]


def test_a_file_that_goes_before_its_turn_is_no_error(watched, tmp_path):
    write(watched, "a.jsonl")
    looker, looked = Looker(watched), Looked()
    looker.look(looked)
    (arrived,) = looker.look(looked)
    (tmp_path / "in" / "a.jsonl").unlink()
    assert list(ReadArrived().process(arrived)) == []


@pytest.fixture
def arrived(watched):
    write(watched, "a.jsonl")
    looker, looked = Looker(watched), Looked()
    looker.look(looked)
    return looker.look(looked)[0]


def test_a_file_that_may_not_be_read_is_refused(arrived, monkeypatch):
    def deny(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("transforms.panoramas.requests.open", deny, raising=False)
    monkeypatch.setattr(LocalFileSystem, "_open", lambda self, path, *_, **__: deny(path))
    (refused,) = ReadArrived().process(arrived)
    assert refused.value["id"] == "a.jsonl"
    assert "Permission denied" in refused.value["reason"]


def test_a_file_is_not_refused_because_storage_fails(arrived, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "the disk does not answer")

    monkeypatch.setattr(LocalFileSystem, "_open", fail)
    monkeypatch.setattr(retry, "WAITS_S", ())
    with pytest.raises(OSError, match="the disk does not answer"):
        list(ReadArrived().process(arrived))


def test_rows_with_one_id_go_to_one_group_in_order(watched):
    rows = "".join(f'{{"id": "{name}", "seed": {seed}}}\n' for seed in range(50) for name in "abcdefgh")
    write(watched, "a.jsonl", rows + "nonsense\n[]\n")
    looker, looked = Looker(watched), Looked()
    looker.look(looked)
    (arrived,) = looker.look(looked)
    batches = list(ReadArrived().process(arrived))
    numbers = [row.number for _, batch in batches for row in batch.rows]
    assert sorted(numbers) == list(range(1, 403))
    groups = {}
    for group, batch in batches:
        assert [row.number for row in batch.rows] == sorted(row.number for row in batch.rows)
        for row in batch.rows:
            if isinstance(row.values, dict):
                assert groups.setdefault(row.values["id"], group) == group


def test_a_step_does_not_look_more_often_than_it_should(watched, monkeypatch):
    class State:
        value = None

        def read(self):
            return self.value

        def write(self, value):
            self.value = value

    step, state = look.LookAgain(watched), State()
    step.setup()
    looks = []
    monkeypatch.setattr(step.looker, "look", lambda looked, most: looks.append(time.time()) or [])
    for _ in range(5):
        list(step.process(("", None), state))
    assert len(looks) == 1
    state.value.last_s = time.time() + 1e6  # the clock has been set back
    state.value.next_s = state.value.last_s + 1
    list(step.process(("", None), state))
    assert len(looks) == 2
