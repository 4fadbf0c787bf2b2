"""The tasks, by the names that the command takes: kinds, which read any table, and those with files of their own."""

from bert_jax.tasks import glue, multiple_choice, question_answering, sentences
from bert_jax.tasks.task import Task

TASKS: dict[str, Task] = {
    'classification': sentences.CLASSIFICATION, 'regression': sentences.REGRESSION, **glue.TASKS,
    'squad': question_answering.SQUAD, 'squad2': question_answering.SQUAD2, 'cmrc2018': question_answering.CMRC2018,
    'swag': multiple_choice.SWAG}
