"""The log says once, in numbers, that training waits for its data."""

from pathlib import Path

import pytest

from engine.records.metrics_file import Mark, MetricsFile
from engine.training.log import RunLog


@pytest.mark.parametrize(("share", "warned"), [(0.19, 0), (0.35, 1)])
def test_waiting_for_data_is_said_once(
    share: float, warned: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = MetricsFile(tmp_path, step=0, evaluated=True, mark=Mark())
    log = RunLog(tmp_path, label="mae", total_steps=80, first_step=0, metrics=metrics, workers=3)
    values = {"loss": 1.0, "lr": 0.1, "images_per_second": 12.0, "data_wait": share}
    for step in (1, 20, 40, 80):
        log.step(step, values, write=True)
        if step == 1:  # the first steps wait for the loader to start
            assert "warning" not in capsys.readouterr().out
    log.close("completed")
    printed = capsys.readouterr().out
    assert (
        printed.count("warning: 35% of the time goes to waiting for data (limit 20%); raise --workers (3 now)")
        == warned
    )
    assert f"12 img/s data {share:.0%}" in printed
