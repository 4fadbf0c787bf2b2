"""Trains a vocabulary, WordPiece or SentencePiece, from a corpus; the five special tokens get ids 0 to 4."""

import collections
import dataclasses
import functools
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from input_pipeline import ranges, records, storage
from input_pipeline.engines import gathering, names, table
from input_pipeline.ranges import Within
from input_pipeline.text import formats, sampling, sources, transforms
from input_pipeline.vocabulary import beside, cases, counting, extending, tokenizer

_MAX_LINE = 4000  # bytes; SentencePiece skips longer ones
_LEAST_LETTERS = 50  # of WordPiece; more are at most a quarter of the tokens, but for frequent ones
_FREQUENT, _RARE = 1e-4, 1e-7  # of all characters: a letter that is a token if there is room; one that is none
_MOST_PIECES = re.compile(r'Please set it to a value <= (\d+)')
_CASE_SAMPLE = 5_000_000  # characters, by which it is chosen whether text is lower-cased
_SENTENCEPIECE_SAMPLE = 2_000_000  # lines; it holds its sample in memory
# Counts are on their way in parts, one for so many bytes of files: so each stays below 64 MB, of any text.
_PART_BYTES, _MOST_PARTS = 32 << 20, 512


def train_from(settings: 'VocabularySettings', progress: bool = False, arguments: Sequence[str] = ()
               ) -> tokenizer.Tokenizer:
  """Trains, writes `settings.output`, and gives the vocabulary back.

  `arguments`: the engine's own, as they stand after -- on a command line. Raises DataError, StorageError or
  EngineError, and then leaves nothing.
  """
  with storage.named_errors(f'--output {settings.output}'), transforms.told():
    return _train(settings, gathering.Job(settings.engine, settings.output, f'--output {settings.output}',
                                          tuple(arguments), settings.workers, progress))


def _train(settings: 'VocabularySettings', job: gathering.Job) -> tokenizer.Tokenizer:
  table.ENGINES[job.engine].check(job.arguments)
  output = storage.path(settings.output)
  trainer = TRAINERS[settings.kind]
  if output.suffix != trainer.suffix:
    raise records.DataError(f'--output {output}: a {settings.kind} vocabulary is a file that ends in {trainer.suffix}')
  if output.exists() and not settings.overwrite:
    raise records.DataError(f'--output {output} exists: name another, or pass --overwrite')
  storage.probe(output, '--output', folder=False)
  parts = sources.mixture(settings.input, settings.format, settings.reading)
  sources.tell_repeats(parts)
  sampling.check(settings.limit, settings.first, parts)
  lower_case = settings.lower_case
  origin: dict[str, object] = {}
  if settings.extend is not None:
    old = extending.load(settings.extend)
    extending.room_in(old, settings.size)
    lower_case, origin = old.lower_case, {'extends': old.sha256}
    counted, _ = _counted(settings, parts, lower_case, job)
    data = extending.extend(counted, old, settings.size, alphabet)
  else:
    data, lower_case = trainer.train(settings, parts, job)
  storage.write_output(output, data)
  beside.write(output, data, kind=settings.kind, size=settings.size, lower_case=lower_case,
               strip_accents=bool(lower_case) and trainer.accents, input=settings.input, **origin)
  return tokenizer.load(output, lower_case)


def _counted(settings: 'VocabularySettings', parts: list[sources.Part], lower_case: bool | None, job: gathering.Job
             ) -> tuple[counting.Counted, bool]:
  """The words of the text, counted by an engine, and whether they are lower-cased, where nobody has said it by the
  first of the text. Raises DataError."""
  if settings.first is not None or lower_case is None and sources.read_once(parts) and job.engine == names.HERE:
    lines = sampling.lines(sampling.documents(parts, None, settings.first, settings.seed), settings.seed)
    lines, lower_case = _choose_case(lines, settings, lower_case)
    counted = counting.of_lines(lines, lower_case)
  else:
    with table.session(job, parts) as gather:
      below = None
      if settings.limit is not None:
        smallest = functools.partial(sampling.smallest, limit=settings.limit)
        keys = functools.partial(sampling.keys, limit=settings.limit, seed=settings.seed)
        found = gather(gathering.Gathering('drawing documents', keys, smallest), parts)
        below = sampling.below(smallest(found), settings.limit)
      if lower_case is None:
        drawn = sampling.lines(sampling.drawn(parts, below, settings.seed), settings.seed)
        _, lower_case = _choose_case(drawn, settings, None)
      wanted = counting.Wanted(lower_case, settings.seed, below)
      size = sum(part.stamp.bytes for part in parts)
      counted = counting.together(gather(gathering.Gathering(
          'text → words', functools.partial(counting.of_chunk, wanted=wanted), counting.together, counting.divided,
          min(_MOST_PARTS, -(-size // _PART_BYTES) or 1), (counting.Counted,)), parts))
  if not counted.words:
    raise _no_text(settings)
  return counted, lower_case


def _no_text(settings: 'VocabularySettings') -> records.DataError:
  return records.DataError(
      f'--input {sources.shown(settings.input)} holds no text: wanted at least one document')


def _wordpiece(settings: 'VocabularySettings', parts: list[sources.Part], job: gathering.Job) -> tuple[bytes, bool]:
  counted, lower_case = _counted(settings, parts, settings.lower_case, job)
  return train_wordpiece(counted, settings.size, lower_case), lower_case


def _sentencepiece(settings: 'VocabularySettings', parts: list[sources.Part], job: gathering.Job) -> tuple[bytes, bool]:
  found = sampling.documents(parts, settings.limit, settings.first, settings.seed)
  lines = sampling.lines(found, settings.seed, _SENTENCEPIECE_SAMPLE, _lines_of)
  lines, lower_case = _choose_case(lines, settings, settings.lower_case)
  return train_sentencepiece(lines, settings.size, lower_case), lower_case


def _choose_case(lines: Iterator[str], settings: 'VocabularySettings', lower_case: bool | None
                 ) -> tuple[Iterator[str], bool]:
  """The lines, and whether they are to be lower-cased: where nobody has said it, by the first of them, and with a line
  that says so where that is not the usual. Raises DataError where there is no line."""
  first, letters = [*itertools.islice(lines, 1)], collections.Counter[str]()
  if not first:
    raise _no_text(settings)
  if lower_case is not None:
    return itertools.chain(first, lines), lower_case
  letters.update(first[0])
  while letters.total() < _CASE_SAMPLE and (line := next(lines, None)) is not None:
    first.append(line)
    letters.update(line)
  lower_case, why = cases.chosen(letters, settings.language, TRAINERS[settings.kind].accents)
  if why:
    print(f'bert-jax: {why}', file=sys.stderr, flush=True)
  return itertools.chain(first, lines), lower_case


def _lines_of(line: str) -> int:
  """How many lines of SentencePiece's one is at most."""
  return 1 + 4 * len(line) // _MAX_LINE


def train_wordpiece(counted: counting.Counted, size: int, lower_case: bool) -> bytes:
  """A vocab.txt, the same for the same words. Raises DataError where the corpus is too small for `size`.

  The trainer numbers the ##letters in the order of a hash map, which changes from run to run, and breaks ties by
  number: so they are numbered before it begins, from counts made here.
  """
  costs, frequent = alphabet(counted.characters, lower_case)
  letters, alone = ([c for c, cost in costs.items() if cost == wanted] for wanted in (2, 1))
  half = (size - len(tokenizer.SPECIAL)) // 2
  letters = letters[:max(size // 4, _LEAST_LETTERS, min(half, len(frequent.intersection(letters))))]
  room = size - len(tokenizer.SPECIAL) - 2 * len(letters)
  chosen = {*letters, *alone[:max(0, min(size // 2, room))]}
  tokens = _merge(counted.words, chosen, costs, size)
  while len(tokens) < size and (more := _more(costs, chosen, size, size - len(tokens))):
    chosen |= more
    tokens = _merge(counted.words, chosen, costs, size)
  if len(tokens) != size:
    bound = 'needs' if len(tokens) > size else 'gives only'
    raise records.DataError(f'--size {size:,}: the corpus {bound} {len(tokens):,} tokens; choose a --size '
                            f'{"above" if len(tokens) > size else "up to"} that, or give more text')
  return ('\n'.join(tokens) + '\n').encode()


def alphabet(characters: collections.Counter, lower_case: bool) -> tuple[dict[str, int], set[str]]:
  """{character after normalisation, which works character by character: its tokens}, in order of how frequent they are,
  and those that are frequent.

  A letter is two tokens, c and ##c. Punctuation and Chinese characters are one, as they are words of their own.
  """
  library = tokenizer.wordpiece_library([tokenizer.UNK], lower_case)
  normalize = library.normalizer.normalize_str
  counts = collections.Counter()
  for character, count in characters.items():
    for normalised in normalize(character.encode('utf-8', 'replace').decode()):
      if not normalised.isspace():
        counts[normalised] += count
  is_alone = lambda c: len(library.pre_tokenizer.pre_tokenize_str(normalize(f'a{c}a'))) > 1
  known = [c for c in sorted(counts, key=lambda c: (-counts[c], c)) if counts[c] >= _RARE * counts.total()]
  return {c: 1 if is_alone(c) else 2 for c in known}, {c for c in known if counts[c] >= _FREQUENT * counts.total()}


def _more(costs: dict[str, int], chosen: set[str], size: int, short: int) -> set[str]:
  """The most frequent of the other characters for which `short` tokens have room; or one that displaces what is merged.
  """
  others = [c for c in costs if c not in chosen]
  ends = itertools.accumulate(costs[c] for c in others)
  room = size - len(tokenizer.SPECIAL) - sum(costs[c] for c in chosen)
  return {c for c, end in zip(others, ends) if end <= short} or {*[c for c in others if costs[c] <= room][:1]}


def _merge(words: Mapping[str, int], chosen: set[str], costs: dict[str, int], size: int) -> list[str]:
  """The tokens of these characters, and what is merged of them up to `size`."""
  import tokenizers
  library = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=tokenizer.UNK))
  library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  alphabet = sorted(chosen)
  known = [*tokenizer.SPECIAL, *alphabet, *(f'##{c}' for c in alphabet if costs[c] == 2)]
  trainer = tokenizers.trainers.WordPieceTrainer(
      vocab_size=size, special_tokens=known, show_progress=False, min_frequency=2, initial_alphabet=alphabet,
      limit_alphabet=len(alphabet), continuing_subword_prefix='##')
  library.train_from_iterator(counting.repeated(words), trainer)
  ids = library.get_vocab()
  return sorted(ids, key=ids.get)


def train_sentencepiece(lines: Iterator[str], size: int, lower_case: bool) -> bytes:
  """A unigram model (spm.model). Raises DataError where the corpus is too small for `size`."""
  import sentencepiece
  model = io.BytesIO()
  pad, unk, cls, sep, mask = tokenizer.SPECIAL
  try:
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=_short(lines), model_writer=model, vocab_size=size, model_type='unigram',
        character_coverage=0.9995,
        normalization_rule_name='nmt_nfkc_cf' if lower_case else 'nmt_nfkc', input_sentence_size=_SENTENCEPIECE_SAMPLE,
        shuffle_input_sentence=False, num_threads=1, minloglevel=2, pad_id=0, unk_id=1, bos_id=2, eos_id=3,
        pad_piece=pad, unk_piece=unk, bos_piece=cls, eos_piece=sep, control_symbols=[mask])
  except (RuntimeError, OSError) as error:
    message = ' '.join(str(error).split())
    if most := _MOST_PIECES.search(message):
      raise records.DataError(f'--size {size:,}: the corpus gives only {int(most[1]):,} pieces; choose a --size up to '
                              'that, or give more text') from error
    raise records.DataError(
        f'SentencePiece cannot make --size {size} pieces: {message}; change --size or give more text') from error
  return model.getvalue()


def _short(lines: Iterator[str]) -> Iterator[str]:
  for line in lines:
    data = line.encode('utf-8', 'replace')
    start = 0
    while start < len(data):
      end = start + _MAX_LINE
      while end < len(data) and data[end] & 0xC0 == 0x80:  # inside of a character
        end -= 1
      yield data[start:end].decode()
      start = end


@dataclasses.dataclass(frozen=True)
class Trainer:
  """How a vocabulary of one kind is made."""
  # -> (the file, whether it is of text that is lower-cased)
  train: Callable[['VocabularySettings', list[sources.Part], gathering.Job], tuple[bytes, bool]]
  suffix: str  # of the file's name
  accents: bool  # whether they are dropped where text is lower-cased
  by_many: bool  # whether several processes, or other machines, can count what it needs


TRAINERS = {
    'wordpiece': Trainer(_wordpiece, '.txt', True, True),
    'sentencepiece': Trainer(_sentencepiece, '.model', False, False)}


@dataclasses.dataclass(frozen=True)
class VocabularySettings:
  """Train a vocabulary from a corpus."""
  input: str | tuple[str, ...]
  """Paths, folders, globs, local, gs:// and the like, - for standard input, `sample`, or `tfds:NAME`; or
  A=WEIGHT,B=WEIGHT (0.3 takes 3 of 10 documents)."""
  output: str
  """The file to write: vocab.txt for wordpiece, spm.model for sentencepiece."""
  kind: Literal[*TRAINERS] = 'wordpiece'
  """WordPiece as BERT's, or a SentencePiece unigram model as ALBERT's."""
  size: Annotated[int, Within(len(tokenizer.SPECIAL) + 1, 2**27)] = 30522
  """Tokens, the five special ones included. 30522 is BERT-uncased's."""
  lower_case: bool | None = None
  """Lower-case text, and drop accents with WordPiece. By default that is done where the language loses little by it, as
  English does: by --language, or else by the letters at the beginning of the text."""
  format: Literal[*formats.FORMATS] | None = None
  """The kind of the input, where its content does not tell."""
  reading: formats.Options = formats.USUAL
  """How text is read; its fields are flags without a name in front."""
  extend: str | None = None
  """A WordPiece vocabulary to enlarge: vocab.txt, or a checkpoint. All its ids stay, and so does its lower case; new
  tokens are what it splits most often in the input."""
  language: str = ''
  """The language of the text, as de or pt-BR, by which --lower-case is chosen."""
  limit: Annotated[int, Within(1, sampling.MOST)] | None = None
  """Use only so many documents, drawn by a hash from all: the text is read twice. A weight draws a share instead."""
  first: Annotated[int, Within(1, 10**12)] | None = None
  """Use only the first documents, so many, and read no more: a quick try."""
  seed: ranges.Seed = 0
  """Of what --limit draws, and of the two million lines that SentencePiece takes at most."""
  workers: Annotated[int, Within(1, 10**4)] = 1
  """Processes that count words; the vocabulary does not depend on it."""
  engine: Literal[*names.ENGINES] = names.HERE
  """Who counts words; the vocabulary does not depend on it. beam: Apache Beam; ray: Ray. Their own flags come last,
  after a bare --: `--engine beam -- --runner=DataflowRunner --project=P --region=R`, `--engine ray --
  --address=auto`."""
  overwrite: bool = False
  """Replace an output that exists."""

  def __post_init__(self):
    if self.kind not in TRAINERS:
      raise records.DataError(f'--kind {self.kind}: wanted one of {", ".join(TRAINERS)}')
    if self.extend is not None and self.kind != 'wordpiece':
      raise records.DataError(f'--extend {self.extend} with --kind {self.kind}: wanted --kind wordpiece')
    ranges.check(self, '', records.DataError, lambda name: '--' + name.replace('_', '-'))
    if self.workers > 1 and not TRAINERS[self.kind].by_many:
      raise records.DataError(f'--workers {self.workers} with --kind {self.kind}, which is trained by one process on '
                              f'{_SENTENCEPIECE_SAMPLE:,} lines at most: leave --workers out')
    if self.workers > 1 and self.first is not None:
      raise records.DataError(f'--workers {self.workers} with --first, which reads in order and no more than it needs: '
                              'leave one of them out')
    names.refuse(self)
    if self.engine != names.HERE:
      self._refuse_what_one_process_does()

  def _refuse_what_one_process_does(self) -> None:
    if not TRAINERS[self.kind].by_many:
      raise records.DataError(f'--engine {self.engine} with --kind {self.kind}, which is trained by one process on '
                              f'{_SENTENCEPIECE_SAMPLE:,} lines at most: leave --engine out')
    if self.limit is not None and self.lower_case is None and self.extend is None:
      raise records.DataError(f'--limit with --engine {self.engine} needs --lower-case or --no-lower-case: to choose '
                              'by the letters of what is drawn, this process would have to read the text')
