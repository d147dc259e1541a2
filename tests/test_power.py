"""Power cuts under load (tests/power.py): a few of each kind, and the control that must lose mail. `tests/long power` does
many."""
import json
import subprocess
import sys

import pytest

import power
from instance import SLOW


@pytest.fixture(scope="module", autouse=True)
def possible():
    why = power.usable()
    if why:
        pytest.skip(why)


def cut(*words):
    """What was counted. It ends with 0 if what should be lost was, and nothing else."""
    done = subprocess.run([sys.executable, power.__file__, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("fs, way, cuts", [("ext4", "shutdown", 4), ("xfs", "shutdown", 3), ("xfs", "clone", 2)])
def test_nothing_acknowledged_is_lost(fs, way, cuts):
    if SLOW > 1:
        cuts = (cuts + 1) // 2
    total = cut(f"--fs={fs}", f"--way={way}", f"--cuts={cuts}", f"--seed={cuts}")
    assert total["problems"] == 0 and total["lost"] == 0
    assert total["cuts"] == cuts and total["acknowledged"] > 0 and total["mailbox states compared"] > 0, total


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_without_syncs_mail_is_lost(fs):
    """Else the test above proves nothing."""
    assert cut(f"--fs={fs}", "--cuts=8", "--block=1", "--forget")["lost"] > 0
