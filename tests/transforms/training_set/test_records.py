from transforms.ingest.staging import write_faults
from transforms.training_set.records import FAULTS, Photograph, internal_reject


def fail(text):
    raise KeyError(text)


def caught(text):
    try:
        fail(text)
    except KeyError as error:
        return error


def test_a_fault_of_ours_is_the_items_reject_and_its_traceback_is_kept_once_a_place(tmp_path):
    FAULTS.clear()
    photograph = Photograph("a.jpg", "CC0", "Å", "Lake")
    first = internal_reject(photograph, "decode", caught("x\ud83d"), attempts=3)
    second = internal_reject("caf\udce9.txt", "find", caught("y"))
    assert (first.source, first.stage, first.reason, first.attempts) == ("a.jpg", "decode", "internal", 3)
    assert (first.licence, first.author, first.title) == ("CC0", "Å", "Lake")
    assert second.source == "caf\ufffd.txt"
    (tmp_path / "out").mkdir()
    write_faults(str(tmp_path / "out"))
    (log,) = (tmp_path / "out" / "faults").iterdir()
    assert all(log.name in reject.message for reject in (first, second))
    assert all(words in log.read_text() for words in ("a.jpg", "Traceback", "in fail"))
    assert not FAULTS


def test_what_is_kept_of_a_fault_can_be_written_and_holds_no_secrets():
    FAULTS.clear()
    reject = internal_reject("a.jpg", "fetch", ValueError("http://alice:S3CRET@h/a.jpg?token=T0KEN \ud83d"))
    (text,) = FAULTS.values()
    for said in (text, reject.message):
        assert "http://h/a.jpg?token=redacted-" in said
        assert not any(secret in said for secret in ("alice", "S3CRET", "T0KEN"))
        assert said.encode()


def test_faults_at_two_places_are_kept_as_two():
    FAULTS.clear()
    for error in (caught("x"), caught("y"), KeyError("elsewhere")):
        internal_reject("a.jpg", "fetch", error)
    assert len(FAULTS) == 2
    FAULTS.clear()
