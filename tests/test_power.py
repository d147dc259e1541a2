"""Power cuts under load (tests/power.py): a few of each kind, and the control that must lose mail. `tests/long power` does
many."""
import pytest

import power
from instance import SLOW


@pytest.fixture(scope="module", autouse=True)
def possible():
    why = power.usable()
    if why:
        pytest.skip(why)


@pytest.mark.parametrize("fs, way, cuts", [("ext4", "shutdown", 4), ("xfs", "shutdown", 3), ("xfs", "clone", 2)])
def test_nothing_acknowledged_is_lost(tmp_path, fs, way, cuts):
    if SLOW > 1:
        cuts = (cuts + 1) // 2
    total, problems, _ = power.run(tmp_path, cuts, fs=fs, way=way, seed=cuts)
    assert not problems, "\n".join(problems)
    assert total["cuts"] == cuts and total["acknowledged"] > 0 and total["mailbox states compared"] > 0, total


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_without_syncs_mail_is_lost(tmp_path, fs):
    """Else the test above proves nothing."""
    _, _, lost = power.run(tmp_path, 1, fs=fs, forget=True)
    assert lost
