"""Score a BERT-like encoder with its head once; cut it to any sparsity from the cached scores.

What a program may rely on, by the file that it is imported from:

    pruning.workbench      Workbench              model, rows, cached calibration and store, opened together
    pruning.spec           PruneSpec              what is wanted: sparsity, pattern, scorer, recovery
                           Pattern, Recover       the choices of two of these
    pruning.pipeline       build_variant          a spec -> the variant in the store, built if it is not there
                           cut                    a spec -> layers, cost and achieved sparsity, nothing written
    pruning.recovery.recipe        Recipe         how a cut is trained
    pruning.recovery.distillation  recover        a spec and rows -> the variant, trained against the dense model
    pruning.variants       VariantStore           the variants under one folder, verified when read
                           Manifest               what one of them is, costs and is worth
    pruning.frontier       measure_side_by_side   times levels in one run, so that their speeds may be compared
                           unmeasured             the levels that no run timed beside the others
                           frontier_rows          accuracy against cost, one row per variant
    pruning.comparison.run compare                the published criteria side by side, over seeds
    pruning.plot           plot_frontier          the same as a picture
    pruning.scores         SCORERS                the importance scorers by name
                           Scorer                 what a new one must do
    pruning.encoder        load_base_model        a Hugging Face directory -> BaseModel
                           BaseModel              the dense encoder with its head
    pruning.architectures  ARCHITECTURES          the architectures by model_type
    pruning.heads          Head                   what a model may answer
    pruning.tasks          TASKS                  rows, loss and metric for each head
    pruning.evaluation     Evaluation             a variant's metric with its interval, and agreement with dense
    pruning.slim.convert   build_slim             base model and layers -> SlimBert, ready to answer
    pruning.prediction     predict_logits         SlimBert and sequences -> logits
    pruning.tokenization   TextTokenizer          texts -> sequences
    pruning.errors         PruningError           base of everything that is refused

    from pathlib import Path

    from pruning.pipeline import build_variant
    from pruning.spec import PruneSpec
    from pruning.workbench import Workbench

    bench = Workbench.open(Path("my-bert"), Path("train.jsonl"), Path("held-out.jsonl"), Path("store"))
    bench.calibrate()
    print(build_variant(bench, PruneSpec(sparsity=0.5)).evaluation)

Nothing is imported here: the names bring torch, and a caller that only asks a running service needs none.
"""
