"""IMU recordings."""

import numpy as np
import pytest
import torch

from imagebind_llm.processing.imu import load_imu
from llama_adapter import UserError

VALUES = np.random.default_rng(0).normal(size=(4100, 6)).astype(np.float32)


def test_all_forms_give_the_same(tmp_path):
    np.save(tmp_path / "rows.npy", VALUES)
    np.save(tmp_path / "columns.npy", VALUES.T)
    np.savetxt(tmp_path / "plain.csv", VALUES, delimiter=",", fmt="%.9g")
    np.savetxt(
        tmp_path / "named.csv", VALUES, delimiter=";", header="ax;ay;az;gx;gy;gz", comments="", fmt="%.9g"
    )
    wanted = torch.from_numpy(VALUES[:4000].T.copy()).unflatten(1, (2, 2000)).transpose(0, 1)
    for name in ("rows.npy", "columns.npy", "plain.csv", "named.csv"):
        found = load_imu(tmp_path / name, 200.0)
        assert found.shape == (2, 6, 2000)
        torch.testing.assert_close(found, wanted)


def test_another_rate(tmp_path):
    ramp = np.repeat(np.arange(1001, dtype=np.float32)[:, None], 6, axis=1)
    np.save(tmp_path / "slow.npy", ramp)
    found = load_imu(tmp_path / "slow.npy", 100.0)
    torch.testing.assert_close(found[0, 0], torch.arange(2000) / 2)


def test_recordings_that_do_not_fit(tmp_path):
    np.save(tmp_path / "short.npy", VALUES[:1999])
    np.save(tmp_path / "narrow.npy", VALUES[:, :5])
    gap = VALUES.copy()
    gap[7, 2] = np.nan
    np.save(tmp_path / "gap.npy", gap)
    (tmp_path / "ragged.csv").write_text("1,2,3,4,5,6\n1,2\n")
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    for name, message in [
        ("short.npy", "short.npy' has 1999 samples at 200 per second. Use at least 2000"),
        ("narrow.npy", r"narrow.npy' has the shape \(4100, 5\). Use 6 columns"),
        ("gap.npy", "gap.npy' holds NaN or infinite values. Fill"),
        ("ragged.csv", "ragged.csv' cannot be read as a table of numbers: .*Use one row"),
        ("words.csv", "words.csv' cannot be read as a table of numbers: .*Use one row"),
        ("nowhere.csv", "nowhere.csv' cannot be read as a table of numbers"),
    ]:
        with pytest.raises(UserError, match=message):
            load_imu(tmp_path / name, 200.0)
