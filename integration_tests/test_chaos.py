"""A seeded run of `chaos.py`: whatever the server does, each caller sees what happened."""

from __future__ import annotations

import subprocess
import sys

from integration_tests import chaos

TURNS = 1500  # `make chaos` takes 20,000
SEED = 7


def test_whatever_the_server_does_each_caller_sees_what_happened() -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "integration_tests.chaos"]
    ran = subprocess.run(
        [*command, f"--turns={TURNS}", f"--seed={SEED}", "--seconds=300"],
        capture_output=True,
        text=True,
        timeout=330,
        check=False,
    )
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not ran.stderr
    assert f"{TURNS} turns" in ran.stdout
    assert "0 problems" in ran.stdout


def test_every_fault_is_drawn() -> None:
    drawn = {chaos.Turn(SEED, number).fault for number in range(TURNS)}
    assert drawn == set(chaos.FAULTS)
    assert len(drawn) >= 20


def test_the_server_and_the_callers_work_out_the_same_turn() -> None:
    for number in range(200):
        one, other = chaos.Turn(SEED, number), chaos.Turn(SEED, number)
        assert (one.fault, one.message, one.events) == (
            other.fault,
            other.message,
            other.events,
        )
        assert (one.error, one.partial, one.acts) == (other.error, other.partial, other.acts)


def test_a_wrong_answer_is_noticed() -> None:
    """The check itself: an answer of another turn, a second request, a tool left open."""
    turns = (chaos.Turn(SEED, number) for number in range(TURNS))
    turn, other = (
        t for t, _ in zip((t for t in turns if t.fault == "none"), "ab", strict=False)
    )
    seen = chaos.Seen(turn, "invoke", has_ended=True)
    seen.runs.model_ends = 1
    seen.text = other.text or "x"
    assert any("not its own" in problem for problem in chaos.problems_of(seen, 1, 1, 0))
    seen.text = ""
    assert any("2 requests" in problem for problem in chaos.problems_of(seen, 2, 1, 0))
    assert any("acted 2 times" in problem for problem in chaos.problems_of(seen, 1, 2, 0))
    seen.runs.tools["run"] += 1
    assert any("tool runs" in problem for problem in chaos.problems_of(seen, 1, 1, 0))
