"""The suites that fork processes are left out where a system has no fork."""

import os

FORKING = ["test_kills_suite.py", "test_full_disk_suite.py", "test_other_user_suite.py"]
collect_ignore = [] if hasattr(os, "fork") else FORKING
