# %% [markdown]
# # From text to vectors in two minutes, on a laptop
#
# Text goes in, an encoder comes out, and its vectors find sentences that are alike. The text is a slice of English
# Wikipedia that comes with gensim (`pip install -e '.[input,sample]'`). Two minutes teach it a little of which words
# stand together; the same cells with more text and more steps train a real model. The commands do the same: README.md.

# %%
import dataclasses
import pathlib

import numpy as np

import bert_jax
from bert_jax import evaluate, recipes, train
from bert_jax.convert import exchange
from input_pipeline.prepare import corpus, settings
from input_pipeline.vocabulary import training

HERE = pathlib.Path('runs/quickstart')
STEPS = 1_000

# %% [markdown]
# ## Text to shards
#
# A vocabulary of 2,048 pieces of words, then shuffled shards of tokens; a tenth of the articles is held out. `input`
# may be a folder of your own text. Run a cell again: what is there already is found and kept.

# %%
vocabulary, data = HERE / 'vocab.txt', HERE / 'data'
if not vocabulary.exists():
  training.train_from(training.VocabularySettings(input='sample', output=str(vocabulary), size=2048))
manifest = corpus.prepare(settings.Prepare(
    input='sample', vocabulary=str(vocabulary), output=str(data), sequence_length=64, validation_share=0.1))
print({name: split.documents for name, split in manifest.splits.items()}, 'documents')

# %% [markdown]
# ## Training
#
# The recipe `sample`, a BERT of four layers, cut to `STEPS` steps. A recipe is a record of settings: any field can be
# replaced. Stop it whenever you like; the same cell goes on where it stopped.

# %%
recipe = recipes.recipe('sample')
config = dataclasses.replace(
    recipe, optimizer=dataclasses.replace(recipe.optimizer, warmup_steps=STEPS // 10),
    run=dataclasses.replace(recipe.run, steps=STEPS, checkpoint_every=STEPS))
result = train.train(config, data, HERE / 'run', engine='threads')  # tf.data takes seconds to begin
print(result.step, 'steps')

# %% [markdown]
# ## What it learnt
#
# Its loss on held-out articles, beside that of who knows only how frequent each word is. Below that begins what it
# knows of a word's neighbours.

# %%
figures = evaluate.evaluate(HERE / 'run')
print({name: round(figures[name], 3) for name in ('mlm_loss', 'unigram_loss', 'mlm_accuracy')})

# %% [markdown]
# ## Vectors
#
# One for each text, the mean of its tokens; cosines say which texts are alike.

# %%
encoder = bert_jax.load(HERE / 'run')
texts = ['He was born in the spring of 1872.', 'The city lies on a river.', 'She was born in the winter of 1905.',
         'The town stands beside a lake.']
vectors = encoder.encode(texts)  # float32 [n D]
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
print(np.round(vectors @ vectors.T, 2))

# %% [markdown]
# ## Taken elsewhere
#
# A directory that `transformers` reads. It is read again and compared before it appears.

# %%
if not (HERE / 'export').exists():
  exchange.export('huggingface', HERE / 'run', HERE / 'export')
print(sorted(path.name for path in (HERE / 'export').iterdir()))
