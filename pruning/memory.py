"""What a pass over rows will hold, told before it begins; refused where the machine has less to give.

An estimate from the shapes alone, of what grows with model and rows: weights, gradients and sums, Gram matrices, and
what a batch keeps for its way back: of every layer and token twelve numbers for each of the hidden size and two for
each neuron, and one and a half for every head and pair of tokens. On the embedded model, in batches of 32 rows of 32 to
256 tokens, calibration took 82 to 88 % of it; scorers' passes took 89 to 100 %, with noise 141 %; that for input Gram
matrices 30 to 69 %; a training 76 to 98 %, of few tokens and a narrow student 122 %.
"""

from collections.abc import Sequence
from pathlib import Path

from pruning.cost import Shape
from pruning.errors import HostMemoryError

FLOAT = 4
MIB = 1 << 20
CGROUP = Path("/sys/fs/cgroup")
"""Where a container of its own finds its limit (version 2)."""


def capture_bytes(shape: Shape, lengths: Sequence[int], batch_rows: int) -> int:
    """Return about what the calibration pass holds at most beside the model, over rows of these ``lengths``."""
    grams = shape.num_layers * (shape.hidden**2 + shape.ffn**2)
    mask_gradients = len(lengths) * shape.num_layers * (shape.num_heads + shape.ffn)
    # A copy of the weights, their gradients, two sums and a square.
    return FLOAT * (5 * shape.prunable_weights + grams + mask_gradients) + _backward_bytes(shape, lengths, batch_rows)


def weight_pass_bytes(shape: Shape, lengths: Sequence[int], batch_rows: int, *, differentiated: bool) -> int:
    """Return about what a streamed scorer's pass holds at most beside the model."""
    if not differentiated:  # it holds a layer and what is being freed of others
        held = _backward_bytes(shape, lengths, batch_rows) * min(3, shape.num_layers) // shape.num_layers
        return FLOAT * shape.prunable_weights + held
    # A copy of the weights, their gradients, a term and up to three sums.
    return FLOAT * 6 * shape.prunable_weights + _backward_bytes(shape, lengths, batch_rows)


def input_grams_bytes(shape: Shape, lengths: Sequence[int], batch_rows: int) -> int:
    """Return about what the pass for input Gram matrices holds at most beside the model."""
    grams = 3 * shape.num_layers * shape.hidden**2  # of queries, of keys and values, of the first FFN matrix
    return FLOAT * grams + weight_pass_bytes(shape, lengths, batch_rows, differentiated=False)


def unit_pass_bytes(shape: Shape, lengths: Sequence[int], batch_rows: int, *, micro_batch: int, queries: int) -> int:
    """Return about what the pass for units inside heads holds at most beside the model.

    ``queries`` of one sequence are looked at closely at a time.
    """
    gradients = 2 * -(-len(lengths) // micro_batch) * shape.num_layers * 2 * shape.hidden  # and once more when stacked
    sums = 5 * shape.num_layers * shape.hidden * shape.head_dim  # two in float64, and a root
    closely = 3 * queries * max(lengths) * shape.hidden
    held = shape.prunable_weights + gradients + sums + closely
    return FLOAT * held + _backward_bytes(shape, lengths, batch_rows)


def training_bytes(
    shape: Shape, heads: Sequence[int], neurons: Sequence[int], lengths: Sequence[int], batch_rows: int, *, thins: bool
) -> int:
    """Return about what the training of a student holds at most beside the base model.

    Args:
        shape: of the dense model, its teacher.
        heads: of each layer of the student, as it begins.
        neurons: likewise.
        lengths: tokens of the rows that are trained on, of which those of like length share a step.
        batch_rows: rows of a step.
        thins: whether a criterion remembers something of every weight.
    """
    student = sum(heads) * shape.head_weights + sum(neurons) * shape.neuron_weights
    # Its weights, their gradients and two moments, the best ones, a checkpoint of three; what a criterion remembers and
    # looks at, and the student that a cut makes of another.
    copies = shape.prunable_weights + (16 if thins else 8) * student
    longest = sorted(lengths, reverse=True)[:batch_rows]
    tokens, pairs = sum(longest), sum(length**2 for length in longest)
    width = shape.num_layers * 6 * shape.hidden + sum(heads) * 6 * shape.head_dim + 2 * sum(neurons)
    width += shape.num_layers * shape.hidden + 12 * shape.hidden + 2 * shape.ffn  # the teacher's states, and a layer
    return FLOAT * (copies + tokens * width + 3 * pairs * sum(heads) // 2)


def sequential_bytes(shape: Shape, lengths: Sequence[int], batch_rows: int) -> int:
    """Return about what sequential recovery holds at most beside the model: all rows, in two models at once."""
    widest = max(shape.hidden, shape.ffn) + 1
    solving = 2 * FLOAT * (3 * widest**2 + 2 * shape.hidden * widest)  # in float64
    passing = weight_pass_bytes(shape, lengths, batch_rows, differentiated=False)
    return FLOAT * (2 * sum(lengths) * shape.hidden + 2 * shape.prunable_weights) + solving + passing


def _backward_bytes(shape: Shape, lengths: Sequence[int], batch_rows: int) -> int:
    """Return what the largest batch keeps of its way through the layers for the way back."""
    largest = 0
    for start in range(0, len(lengths), batch_rows):
        batch = lengths[start : start + batch_rows]
        tokens, pairs = sum(batch), sum(length**2 for length in batch)
        largest = max(largest, tokens * (12 * shape.hidden + 2 * shape.ffn) + 3 * pairs * shape.num_heads // 2)
    return FLOAT * shape.num_layers * largest


def require_memory(needed: int, what: str, longest: int, first: str = "") -> None:
    """Refuse work that would not fit.

    Args:
        needed: bytes.
        what: the work, as the message begins.
        longest: tokens of the longest row, which the remedy names.
        first: what else helps, and is easier done.

    Raises:
        HostMemoryError: the machine, or this process' share of it, has fewer bytes to give.
    """
    available = available_bytes()
    if available is not None and needed > available:
        raise HostMemoryError(
            f"{what} needs about {needed} bytes of memory ({needed // MIB} MiB) and there are {available} "
            f"({available // MIB} MiB) to have; {first}leave out the longest rows (the longest has {longest} tokens), "
            "take a smaller model, stop what else runs here, or give this process more memory"
        )


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> int | None:
    """Return the memory that this process may still take without swapping, or None where no file says it."""
    found = [number for number in (_of_machine(meminfo), _of_cgroup(cgroup)) if number is not None]
    return min(found, default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].removesuffix("kB")) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_cgroup(cgroup: Path) -> int | None:
    """Return what is left under the limit; of what is used, files that nobody has open lately can be dropped."""
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))  # "max" where there is none
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
