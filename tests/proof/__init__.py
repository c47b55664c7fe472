"""The proof: every promise is a suite of tests that counts what it tried.

**The form.** A test belongs to a suite of :mod:`tests.proof.suites` by a marker, and says what it counted
with the fixture ``tally``::

    @pytest.mark.suite("T2")
    def test_a_run_killed_at_every_point_finishes(tmp_path: Path, tally: Tally) -> None:
        ...
        tally(points=240, hit=238, seed=7)

``points`` is what there was to try, ``hit`` what was tried indeed (a kill that happened, a history that was
played), ``seed`` what makes it come again, ``violations`` what was found wrong, in words. A marked test that says
nothing is one point, hit. A module whose tests all belong to one suite says ``pytestmark = pytest.mark.suite("T13")``.
A test that counts points and hits none fails.

``make proof`` runs every marked test, the slow ones too, and writes ``proof.json`` and the counts in
``docs/guarantees.md``; the gate runs those that are not slow, which sample the same points with a seed.
"""
