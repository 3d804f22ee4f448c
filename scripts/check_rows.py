"""Check the embedded rows: counts, balance, lengths, and no two rows that are nearly the same.

python scripts/check_rows.py [FOLDER]    (embedded/rows unless given)
"""

import json
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

SHARED_WORDS = 5
"""No two rows share a run of this many words."""
MAX_OVERLAP = 0.5
"""No two rows share more than this share of their word pairs (Jaccard)."""


def words_of(text: str) -> list[str]:
    """Return the lower-case words of a text, letters and digits only."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def runs(words: list[str], length: int) -> set[tuple[str, ...]]:
    """Return all runs of ``length`` neighbouring words."""
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def problems(calibration: list[dict[str, str]], evaluation: list[dict[str, str]]) -> list[str]:
    """Return what is wrong with the two sets; nothing, if all is well."""
    found = []
    for name, rows, least in (("calibration", calibration, 1000), ("evaluation", evaluation, 600)):
        labels = Counter(row["label"] for row in rows)
        if len(rows) < least:
            found.append(f"{name}: {len(rows)} rows, fewer than {least}")
        if set(labels) != {"positive", "negative"} or abs(labels["positive"] - labels["negative"]) > len(rows) // 50:
            found.append(f"{name}: labels are not balanced: {dict(labels)}")
        if len({row["domain"] for row in rows}) < 12:
            found.append(f"{name}: fewer than 12 domains")
        found += [
            f"{name}: not 2 to 60 words: {row['text']}" for row in rows if not 2 <= len(row["text"].split()) <= 60
        ]
    everything = [(row["text"], words_of(row["text"])) for row in calibration + evaluation]
    seen: dict[tuple[str, ...], str] = {}
    for text, words in everything:
        for run in runs(words, SHARED_WORDS):
            if seen.setdefault(run, text) != text:
                found.append(f"share '{' '.join(run)}': {seen[run]!r} and {text!r}")
    pairs = [(text, runs(words, 2) or {tuple(words)}) for text, words in everything]
    for (text, mine), (other, theirs) in combinations(pairs, 2):
        if len(mine & theirs) / len(mine | theirs) > MAX_OVERLAP:
            found.append(f"nearly the same: {text!r} and {other!r}")
    return found


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Print each problem; return how the process should exit."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "embedded/rows")
    calibration, evaluation = read(folder / "calibration.jsonl"), read(folder / "evaluation.jsonl")
    found = problems(calibration, evaluation)
    print("\n".join(found) or f"{len(calibration)} calibration and {len(evaluation)} evaluation rows: all well")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
