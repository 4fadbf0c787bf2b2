"""The one table of subcommands. A command's module is imported when it is called: `bert-jax --help` waits for none."""

from collections.abc import Callable


def vocabulary(argv: list[str]) -> int:
  """Train a WordPiece or SentencePiece vocabulary from a corpus."""
  from launch.commands import text
  return text.vocabulary(argv)


def prepare(argv: list[str]) -> int:
  """Turn text into shuffled, pre-tokenized shards: train and validation."""
  from launch.commands import text
  return text.prepare(argv)


def inspect(argv: list[str]) -> int:
  """Show what is in prepared data, with examples, and verify its checksums."""
  from launch.commands import text
  return text.inspect(argv)


def pretrain(argv: list[str]) -> int:
  """Train a recipe, or resume where the run directory stopped."""
  from launch.commands import pretraining
  return pretraining.pretrain(argv)


def finetune(argv: list[str]) -> int:
  """Fine-tune a checkpoint on a task, or resume where the run directory stopped."""
  from launch.commands import training
  return training.finetune(argv)


def supervise(argv: list[str]) -> int:
  """Train, and start again after what a restart may mend: `supervise -- pretrain …`."""
  from launch.commands import supervising
  return supervising.supervise(argv)


def evaluate(argv: list[str]) -> int:
  """Held-out figures of a run, beside the unigram baseline where it was pretrained."""
  from launch.commands import training
  return training.evaluate(argv)


def predict(argv: list[str]) -> int:
  """Answer examples with a fine-tuned run: official files, and lines of JSON."""
  from launch.commands import training
  return training.predict(argv)


def plot(argv: list[str]) -> int:
  """Draw the curves of a run, or of several to compare, to RUN/loss.png."""
  from launch.commands import following
  return following.plot(argv)


def report(argv: list[str]) -> int:
  """Write one page of HTML about a run, or about several side by side."""
  from launch.commands import following
  return following.report(argv)


def runs(argv: list[str]) -> int:
  """List the runs of a folder: recipe, state, steps, losses, tokens a second, last change."""
  from launch.commands import following
  return following.runs(argv)


def tensorboard(argv: list[str]) -> int:
  """Show the curves of runs in TensorBoard."""
  from launch.commands import following
  return following.tensorboard(argv)


def plan(argv: list[str]) -> int:
  """Compile a recipe for a TPU pod, on any machine: memory, collectives, step time, days and cost."""
  from launch.commands import planning
  return planning.plan(argv)


def benchmark(argv: list[str]) -> int:
  """Measure: `benchmark step`, the training step; `input`, from shards to batches; `tasks`, a suite of tasks."""
  from launch.commands import measuring
  return measuring.benchmark(argv)


def import_(argv: list[str]) -> int:
  """Bring in a checkpoint of Hugging Face or of Google's code."""
  from launch.commands import checkpoints
  return checkpoints.import_(argv)


def export(argv: list[str]) -> int:
  """Hand a checkpoint on: to Hugging Face, sentence-transformers or Google's code."""
  from launch.commands import checkpoints
  return checkpoints.export(argv)


def verify(argv: list[str]) -> int:
  """Say what is sound: of a run and its checkpoints, of prepared data, of an export."""
  from launch.commands import checkpoints
  return checkpoints.verify(argv)


def selftest(argv: list[str]) -> int:
  """Compare our own kernels with plain JAX on the accelerator that is here."""
  from launch.commands import proving
  return proving.selftest(argv)


def fill_mask(argv: list[str]) -> int:
  """Fill the [MASK]s of texts."""
  from launch.commands import using
  return using.fill_mask(argv)


def features(argv: list[str]) -> int:
  """Vectors of texts or of their tokens, from any layers, as JSON lines or arrays."""
  from launch.commands import using
  return using.features(argv)


def score(argv: list[str]) -> int:
  """How likely sentences are, and which of minimal pairs a model prefers (BLiMP)."""
  from launch.commands import using
  return using.score(argv)


def next_sentence(argv: list[str]) -> int:
  """How likely one text follows another."""
  from launch.commands import using
  return using.next_sentence(argv)


def launch_files(argv: list[str]) -> int:
  """Write the scripts and manifests that start a pod to a folder."""
  from launch.commands import launch_files
  return launch_files.launch_files(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    'vocabulary': vocabulary, 'prepare': prepare, 'inspect': inspect,
    'pretrain': pretrain, 'finetune': finetune, 'supervise': supervise,
    'evaluate': evaluate, 'predict': predict, 'plot': plot, 'report': report,
    'runs': runs, 'tensorboard': tensorboard,
    'plan': plan, 'benchmark': benchmark, 'selftest': selftest,
    'verify': verify, 'import': import_, 'export': export, 'launch-files': launch_files,
    'fill-mask': fill_mask, 'features': features, 'score': score, 'next-sentence': next_sentence,
}
