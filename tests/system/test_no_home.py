"""A worker whose user has no home folder: no HOME, and no line in /etc/passwd, as in many containers."""

import os
import sys
from pathlib import Path

from tests.support.waiting import wait_until
from upres.embedded.child import Child
from upres.embedded.stack import Local

WITHOUT_HOME = """
import os, pwd, sys
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown  # the checkout may be readable by this user only, so the test cannot become another one
del os.environ["HOME"]
sys.argv = ["worker"]
from upres.worker.__main__ import main
sys.exit(main())
"""


def test_a_worker_without_a_home_folder_takes_jobs_and_says_that_it_keeps_no_models(
    local: Local, tmp_path: Path
) -> None:
    environment = {**local.environment, "HOME": os.environ.get("HOME", "/"), "UPRES_CACHE_DIR": ""}
    child = Child("worker", [sys.executable, "-c", WITHOUT_HOME], environment, tmp_path)
    try:
        log = tmp_path / "worker.log"
        wait_until(lambda: "takes jobs" in log.read_text(), 30)
        assert "this user has no home folder: model files are not kept" in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        child.stop()
