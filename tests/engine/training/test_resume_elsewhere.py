"""A run that is resumed with another number of processes."""

import re
from dataclasses import replace

import pytest

from engine.config import as_json
from engine.records.identity import check_folder, identity_of, write_identity


@pytest.mark.parametrize(
    ("then", "now", "world", "message"),
    [
        (
            4,
            2,
            1,
            "give --accumulate 4 in its place. A device then takes 2 images at once, not 4: about 0.5 times the",
        ),
        (
            1,
            4,
            2,
            "give --accumulate 1 in its place. A device then takes 4 images at once, not 1: about 4 times the",
        ),
        (4, 2, 4, "resume it with a number of processes that divides 2, and --accumulate 4."),
    ],
)
def test_micro_batches_of_another_number_of_processes(
    then: int, now: int, world: int, message: str, toy_task, toy_config, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 8: the message says which flag takes the place of --max-per-device, and what it costs."""
    before, after = (replace(toy_config, run=replace(toy_config.run, accumulate=count)) for count in (then, now))
    write_identity(tmp_path, identity_of("toy", as_json(before), toy_task().facts))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    identity = identity_of("toy", as_json(after), toy_task().facts)
    why = f"With --max-per-device accumulate follows from the processes ({now} with {world}), and the run has {then}"
    with pytest.raises(ValueError, match=re.escape(why) + ".*" + re.escape(message)):
        check_folder(tmp_path, identity, resume=True, config=after)
