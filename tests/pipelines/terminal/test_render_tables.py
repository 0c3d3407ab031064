"""The printed tables of a render job: names and reasons may come from anywhere."""

from pipelines.terminal.render_tables import Summary, show_refused, show_summary
from transforms.panoramas.manifest import MANIFEST_SCHEMA, refused_row


def test_names_are_shown_as_they_are_and_steer_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    about = {"id": "p", "state": "done", "plan": "0" * 12, "width_px": 5, "height_px": 4, "files": ["panoramas/p.png"]}
    odd = "r[/b][red].jsonl\x1b]0;owned\x07\n, request 1"
    rows = [{**dict.fromkeys(MANIFEST_SCHEMA.names), **about}, refused_row(odd, "because \x1b[2J\nforged: line")]
    show_summary("s3://bucket/run[a]/[/b]", Summary.of(rows))
    show_refused(odd, "because")
    said = capsys.readouterr().err
    assert "Panoramas in s3://bucket/run[a]/[/b]" in said
    assert "r[/b][red].jsonl" in said
    assert "\x1b]0;" not in said
    assert "\x1b[2J" not in said
    assert "\nforged" not in said
