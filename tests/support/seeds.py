"""Seeds of tests that draw what they do at random."""

import os
import secrets

CI_SEED = 589146


def seed() -> int:
    """The same in each run of CI, so that a change is judged by the same tests; elsewhere a new one each time."""
    return CI_SEED if os.environ.get("CI") else secrets.randbelow(10**6)
