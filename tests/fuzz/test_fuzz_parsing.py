"""JSON and YAML text of any damage."""

import json
import random
from typing import Any

from files.parsing import parse_json, parse_yaml

VALUE = {"a": [1, 2.5, {"b": "text", "c": None}], "d": {"e": True, "f": [[1], [2, 3]]}, "g": "ä" * 20}
YAML = "name: x\narms:\n  mae: {init: &a [1, 2, 'three']}\n  random: *a\nseeds: [0, 1]\n# end\n"


def test_json_text(campaign: Any, damaged_json: Any) -> None:
    campaign.run(
        lambda rng: damaged_json(rng, VALUE), lambda text: parse_json(text, "f.json"), cases=300, names="f.json"
    )


def test_yaml_text(campaign: Any, damaged_bytes: Any) -> None:
    def case(rng: random.Random) -> bytes:
        return bytes(damaged_bytes(rng, rng.choice((YAML, json.dumps(VALUE))).encode()))

    campaign.run(case, lambda text: parse_yaml(text, "f.yaml"), cases=300, names="f.yaml")
