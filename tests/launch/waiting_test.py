import pytest

from isl_jax.launch import waiting


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_tells_now_and_then(clock, capsys):
    with waiting.Waiting("look", 50) as bar:
        for _ in range(50):
            clock[0] += 10
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8 and lines[0] == "look: 6 of 50 fields, 1 min"


def test_what_is_over_soon_tells_nothing_and_bytes_are_scaled(clock, capsys):
    with waiting.Waiting("fetch", 5_000_000, "B", scaled=True) as bar:
        bar.update(1_000_000)
        assert not capsys.readouterr().err
        clock[0] += 120
        bar.update(1_000_000)
    assert capsys.readouterr().err == "fetch: 2.00M of 5.00M B, 2 min\n"
