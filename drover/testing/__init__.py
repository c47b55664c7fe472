"""For the tests of those who build on drover: a clock in the test's hands, and a suite for agents of one's own."""

from drover.testing.agents import RULES, Finding, NotConforming, assert_conforms, examine
from drover.testing.clock import FakeClock
from drover.testing.stage import Act, Stage

__all__ = ["RULES", "Act", "FakeClock", "Finding", "NotConforming", "Stage", "assert_conforms", "examine"]
