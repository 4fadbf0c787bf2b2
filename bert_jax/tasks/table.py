"""The kinds of task, by the name that the command takes."""

from bert_jax.tasks import multiple_choice, question_answering, sentences
from bert_jax.tasks.task import Task

TASKS: dict[str, Task] = {
    'classification': sentences.CLASSIFICATION, 'regression': sentences.REGRESSION,
    'squad': question_answering.SQUAD, 'squad2': question_answering.SQUAD2, 'cmrc2018': question_answering.CMRC2018,
    'swag': multiple_choice.SWAG}
