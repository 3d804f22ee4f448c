"""How often the guard turns back a variant that holds its floor, and how soon one that does not. No service is started.

python scripts/measure_false_alarms.py embedded/model --train TRAIN --eval VALIDATION --store STORE

Every run draws texts from the rows, with replacement, and looks at the test after each, as the service does. What is
drawn is whether the variant really gave the dense model's label. *Own* is the hardest floor that a variant holds: its
agreement on the rows.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from spoiling import disturbed
from workbench_arguments import calibrated_workbench, workbench_parser

from pruning.evaluation import Evaluation
from pruning.pipeline import build_variant
from pruning.prediction import judged_logits
from pruning.slim.convert import build_slim
from pruning.spec import PruneSpec
from pruning.workbench import Workbench
from service.guard import agreement_floor, disagreement
from service.policy import Policy
from service.tally import Compared, Tally

Agreement = NDArray[np.bool_]


def main() -> None:
    """Print two Markdown tables: levels as they are, then one level with noise on its weights."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--levels", default="0.3,0.5,0.7", help="levels of the first table (%(default)s)")
    parser.add_argument("--noises", default="0.3,0.5,0.7,1,10", help="of the second, in standard deviations")
    parser.add_argument("--level", type=float, default=0.5, help="level of the second (%(default)s)")
    parser.add_argument("--runs", type=int, default=100, help="runs of each row (%(default)s)")
    parser.add_argument("--texts", type=int, default=2000, help="texts of each run (%(default)s)")
    options = parser.parse_args()
    bench = calibrated_workbench(options)
    policy = Policy(accuracy_floor=0.0)
    print(f"{options.runs} runs of {options.texts} texts; stated false-alarm rate {policy.false_alarm_rate:g}\n")
    print("| sparsity | agreement | floor | false alarms | floor, own | false alarms |\n" + "| --- " * 6 + "|")
    for level in map(float, options.levels.split(",")):
        agrees_N, evaluation = agreement_of(bench, level)
        own = float(agrees_N.mean())
        alarms = [
            sum(one is not None for one in alarms_of(agrees_N, held, evaluation, options.runs, options.texts))
            for held in (policy, replace(policy, agreement_floor=own))
        ]
        floor = agreement_floor(policy, evaluation)
        print(f"| {level:g} | {own:.3f} | {floor:.3f} | {alarms[0]} | {own:.3f} | {alarms[1]} |", flush=True)
    print(f"\nsparsity {options.level:g}, disturbed after it was judged\n")
    print("| noise | agreement | floor | turned back | texts, median | most |\n" + "| --- " * 6 + "|")
    for noise in map(float, options.noises.split(",")):
        agrees_N, evaluation = agreement_of(bench, options.level, noise)
        told = alarms_of(agrees_N, policy, evaluation, options.runs, options.texts)
        found = [texts for texts in told if texts is not None]
        spread = f"{np.median(found):.0f} | {max(found)}" if found else "- | -"
        floor = agreement_floor(policy, evaluation)
        print(
            f"| {noise:g} | {agrees_N.mean():.3f} | {floor:.3f} | {len(found)} of {options.runs} | {spread} |",
            flush=True,
        )


def agreement_of(bench: Workbench, level: float, noise: float = 0.0) -> tuple[Agreement, Evaluation]:
    """Return, for each evaluation row, whether the level gives the dense model's label, and how it was judged."""
    manifest = build_variant(bench, PruneSpec(sparsity=level))
    _, layers = bench.store.load(manifest.variant_id)
    model = build_slim(bench.base, disturbed(layers, noise) if noise else layers)
    logits_NC, _ = judged_logits(model, bench.evaluation.sequences)
    agrees_N: Agreement = (logits_NC.argmax(1) == bench.reference().argmax(1)).numpy()
    return agrees_N, manifest.evaluation


def alarms_of(
    agrees_N: Agreement, policy: Policy, evaluation: Evaluation, runs: int, texts: int, seed: int = 0
) -> list[int | None]:
    """Return of each run after how many texts the guard turned the variant back; None where it never did."""
    draw = np.random.default_rng(seed)
    return [first_alarm(draw.choice(agrees_N, texts), policy, evaluation) for _ in range(runs)]


def first_alarm(agrees_T: Agreement, policy: Policy, evaluation: Evaluation) -> int | None:
    """Return after how many texts, looked at one by one, the guard turned the variant back; None if it never did."""
    for texts, agreed in enumerate(np.cumsum(agrees_T).tolist(), start=1):
        slices = (Compared(label="", length="", texts=texts, agreed=agreed, kl_sum=0.0),)
        if disagreement(policy, evaluation, Tally(variant_id="", compared=slices)):
            return texts
    return None


if __name__ == "__main__":
    main()
