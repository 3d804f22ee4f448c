"""How far a run is, and what learning rate belongs to that."""

from pruning.recovery.recipe import Recipe


def progress_of(recipe: Recipe, step: float, seconds: float) -> float:
    """Return how much of a run is over after ``step`` steps and ``seconds``, in [0, 1]; 1 ends it."""
    shares = [0.0]
    if recipe.steps is not None:
        shares.append(step / recipe.steps)
    if recipe.minutes is not None:
        shares.append(seconds / (60.0 * recipe.minutes))
    return min(1.0, max(shares))


def learning_rate_at(recipe: Recipe, progress: float) -> float:
    """Return the learning rate: a linear rise over ``warm_up`` of the run, then a linear fall to zero at its end.

    A run whose steps and minutes are unknown beforehand falls as fast as the nearer bound comes closer.
    """
    if progress < recipe.warm_up:
        return recipe.learning_rate * progress / recipe.warm_up
    if recipe.warm_up == 1.0:
        return recipe.learning_rate
    return recipe.learning_rate * (1.0 - progress) / (1.0 - recipe.warm_up)
