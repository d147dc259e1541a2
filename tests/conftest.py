"""Fixtures of the tests that drive whole daemons. `make system` sets BIN."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from instance import Instance  # noqa: E402


@pytest.fixture
def instance(tmp_path):
    """A running instance with one user, u1@example.test with the password pass1."""
    with Instance(tmp_path / "i") as i:
        yield i


@pytest.fixture
def make_instance(tmp_path):
    """make_instance(main={...}, ...) gives a running instance; all are stopped at the end of the test."""
    made = []

    def make(start=True, **options):
        i = Instance(tmp_path / f"i{len(made)}", **options)
        made.append(i)
        if start:
            i.start()
        return i

    yield make
    for i in made:
        i.stop()


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    """The log of each instance goes with the report of a test that failed."""
    report = (yield).get_result()
    folder = item.funcargs.get("tmp_path") if hasattr(item, "funcargs") else None
    if report.failed and folder:
        for log in sorted(pathlib.Path(folder).glob("*/log/mail.log")) + sorted(pathlib.Path(folder).glob("*/stderr")):
            report.sections.append((str(log), log.read_text(errors="replace")[-6000:]))
