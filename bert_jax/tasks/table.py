"""The tasks, by the names that the command takes: kinds, which read any table, and those with files of their own."""

from bert_jax.tasks import glue, sentences
from bert_jax.tasks.task import Task

TASKS: dict[str, Task] = {'classification': sentences.CLASSIFICATION, 'regression': sentences.REGRESSION, **glue.TASKS}
