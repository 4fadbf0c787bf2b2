"""The tasks, by the names that the command takes: kinds, which read any table, and those with files of their own."""

from bert_jax.tasks import features_ner, glue, multiple_choice, question_answering, sentences, tagging
from bert_jax.tasks.task import Task

TASKS: dict[str, Task] = {
    'classification': sentences.CLASSIFICATION, 'regression': sentences.REGRESSION, **glue.TASKS,
    'squad': question_answering.SQUAD, 'squad2': question_answering.SQUAD2, 'cmrc2018': question_answering.CMRC2018,
    'swag': multiple_choice.SWAG,
    'tagging': tagging.TAGGING, 'word_tags': tagging.WORD_TAGS, 'conll2003': tagging.of_files(tagging.CONLL2003),
    'wnut17': tagging.of_files(tagging.WNUT17), 'ner_features': features_ner.TAGGING}
