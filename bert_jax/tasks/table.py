"""The kinds of task, by the name that the command takes."""

from bert_jax.tasks import sentences
from bert_jax.tasks.task import Task

TASKS: dict[str, Task] = {'classification': sentences.CLASSIFICATION, 'regression': sentences.REGRESSION}
