"""The table of public checkpoints as a page shows it, with the command of each."""

from backbones.weights.zoo import PUBLIC
from backbones.weights.zoo_entry import HALF, OPENAI_CLIP


def markdown_table() -> str:
    """Return the table of all entries, and the command of each below it."""
    lines = [
        "| file | source | architecture | contents | normalised target | data | epochs | mean; std | md5 | licence |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in PUBLIC:
        cells = (
            f"[{entry.name}]({entry.url})",
            entry.source,
            entry.architecture,
            entry.contents,
            entry.normalised_target or "unknown",
            entry.data,
            "unknown" if entry.epochs is None else str(entry.epochs),
            {HALF: "0.5; 0.5", OPENAI_CLIP: "CLIP"}.get((entry.mean, entry.std), "ImageNet"),
            "" if entry.md5 is None else f"{entry.md5}...",
            entry.licence or "not stated",
        )
        lines.append(f"| {' | '.join(cells)} |")
    commands = [f"{entry.command}  # {entry.name}" if entry.file else entry.command for entry in PUBLIC]
    return "\n".join([*lines, "", "```bash", *commands, "```", ""])
