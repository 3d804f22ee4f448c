"""The tasks: one file each, one row each in ``TASKS``."""

from pruning.heads import Head
from pruning.tasks.answers import Answers
from pruning.tasks.base import Judgement, Task
from pruning.tasks.labels import Labels
from pruning.tasks.scores import Scores
from pruning.tasks.tags import Tags

TASKS: dict[Head, Task] = {task.head: task for task in (Labels(), Scores(), Tags(), Answers())}
"""Head -> what is done with rows for it."""

__all__ = ["TASKS", "Judgement", "Task"]
