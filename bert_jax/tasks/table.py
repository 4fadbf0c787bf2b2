"""The kinds of task, by the name that the command takes."""

from bert_jax.tasks import features_ner, sentences, tagging
from bert_jax.tasks.task import Task

TASKS: dict[str, Task] = {
    'classification': sentences.CLASSIFICATION, 'regression': sentences.REGRESSION, 'tagging': tagging.TAGGING,
    'word_tags': tagging.WORD_TAGS, 'conll2003': tagging.of_files(tagging.CONLL2003),
    'wnut17': tagging.of_files(tagging.WNUT17), 'ner_features': features_ner.TAGGING}
