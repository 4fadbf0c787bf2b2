"""transformers' BertForPreTraining on given weights and batches, in a process of its own: a peer of `benchmark step`.

`python -m bert_jax.benchmark.huggingface DIRECTORY` reads the model and settings that peers.py wrote there, then
answers each line of stdin with a line of JSON. It never imports JAX, so the thread pools of the two do not meet.

B rows, T tokens, N predicted tokens of a batch, D hidden.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import sys
import time
from typing import Any

import numpy as np

from bert_jax.benchmark import turns

SETTINGS_FILE, BATCHES_FILE = 'benchmark.json', 'batches.npz'


def masked_only(model, batch):
  """The loss with the head on the predicted tokens only, as ours: {[B T], [N], [B]} -> scalar tensor."""
  from torch.nn.functional import cross_entropy
  ids, mask, types = batch['input_ids'], batch['attention_mask'], batch['token_type_ids']
  outputs = model.bert(ids, attention_mask=mask, token_type_ids=types)
  picked = outputs.last_hidden_state.flatten(0, 1).index_select(0, batch['predicted'])  # [N D]
  scores = model.cls.predictions(picked)
  each = cross_entropy(scores.float(), batch['predicted_ids'], reduction='none')
  weights = batch['predicted_weights']
  pairs = model.cls.seq_relationship(outputs.pooler_output).float()
  next_sentence = cross_entropy(pairs, batch['next_sentence_labels'])
  return (each * weights).sum() / weights.sum() + next_sentence


def as_shipped(model, batch):
  """BertForPreTraining's own loss, from logits at every token: {[B T], [B]} -> scalar tensor."""
  names = 'input_ids', 'attention_mask', 'token_type_ids', 'labels'
  return model(**{name: batch[name] for name in names}, next_sentence_label=batch['next_sentence_labels']).loss


LOSSES = {'masked': masked_only, 'shipped': as_shipped}


def predicted(batches: list[dict[str, np.ndarray]]) -> int:
  """N: the most predicted tokens of a batch."""
  return max(int(np.count_nonzero(batch['masked_lm_weights'])) for batch in batches)


def tensors(batch: dict[str, np.ndarray], device, slots: int) -> dict:
  """A batch of one pair a row as torch has it: int64 ids, an attention mask, for `as_shipped` labels, or -100 in them,
  and for `masked_only` `slots` numbers of predicted tokens in the batch, the last ones of them unused."""
  import torch
  row, slot = np.nonzero(batch['masked_lm_weights'])
  labels = np.full(batch['input_ids'].shape, -100, np.int64)
  place = row, batch['masked_lm_positions'][row, slot]
  labels[place] = batch['masked_lm_ids'][row, slot]
  fill = lambda values: np.pad(values, (0, slots - len(row)))
  found = {name: batch[name].astype(np.int64) for name in ('input_ids', 'token_type_ids')} | {
      'attention_mask': (batch['pair_ids'] > 0).astype(np.int64), 'labels': labels,
      'predicted': fill(np.ravel_multi_index(place, labels.shape)), 'predicted_ids': fill(labels[place]),
      'predicted_weights': fill(batch['masked_lm_weights'][row, slot]),
      'next_sentence_labels': batch['next_sentence_labels'][:, 0].astype(np.int64)}
  return {name: torch.from_numpy(np.array(value)).to(device) for name, value in found.items()}


class TimedPeer:
  """The model, torch's fused AdamW, and the batches, all on the device."""

  def __init__(self, directory: pathlib.Path):
    import torch
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settings = json.loads((directory / SETTINGS_FILE).read_text())
    self.device = torch.device(settings['device'])
    self.precision, self.clip = settings['dtype'], settings['clip_norm']
    self.on_cuda = self.device.type == 'cuda'
    if self.on_cuda:
      torch.set_float32_matmul_precision('high')  # TF32, as JAX multiplies float32 there
    model: Any = transformers.BertForPreTraining.from_pretrained(directory, dtype=torch.float32)
    self.model = model.to(self.device)
    named = list(self.model.named_parameters())
    plain = lambda name: 'bias' in name or 'LayerNorm' in name
    groups = [{'params': [p for name, p in named if not plain(name)], 'weight_decay': settings['weight_decay']},
              {'params': [p for name, p in named if plain(name)], 'weight_decay': 0.0}]
    self.optimizer = torch.optim.AdamW(groups, lr=settings['learning_rate'], betas=settings['betas'],
                                       eps=settings['epsilon'], fused=True)
    with np.load(directory / BATCHES_FILE) as arrays:
      count = 1 + max(int(name.split('/')[0]) for name in arrays)
      batches = [{name.split('/')[1]: arrays[name] for name in arrays if name.startswith(f'{i}/')}
                 for i in range(count)]
    *batches, evaluated = batches
    self.content = [(int((batch['pair_ids'] > 0).sum()), len(batch['pair_ids'])) for batch in batches]
    slots = predicted(batches)
    self.batches = [tensors(batch, self.device, slots) for batch in batches]
    self.evaluated = tensors(evaluated, self.device, predicted([evaluated]))
    self.losses = dict(LOSSES)

  def computing(self):
    import torch
    narrow = self.precision == 'bfloat16'
    return torch.autocast(self.device.type, torch.bfloat16) if narrow else contextlib.nullcontext()

  def step(self, loss_of, index: int):
    import torch
    self.optimizer.zero_grad(set_to_none=True)
    with self.computing():
      loss = loss_of(self.model, self.batches[index])
    loss.backward()
    if self.clip:
      torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
    self.optimizer.step()
    return loss.detach()

  def evaluate(self) -> dict:
    """{'loss'} of the batch for it without dropout."""
    import torch
    self.model.eval()
    with torch.no_grad(), self.computing():
      return {'loss': float(masked_only(self.model, self.evaluated))}

  def launch(self, mode: str, index: int):
    """Starts a step; what `finish` takes. `mode`: a key of LOSSES, or compiled: masked through torch.compile."""
    import torch
    loss = self.step(self.losses[mode], index)
    if not self.on_cuda:
      return loss
    done = torch.cuda.Event()  # reading the loss would wait for the next step too, where that was started
    done.record()
    return done

  def finish(self, launched) -> None:
    if self.on_cuda:
      launched.synchronize()
    else:
      float(launched)

  def warm_up(self, mode: str) -> dict:
    """Steps over batches of each shape, and one more: what torch.compile does at first is done then."""
    import torch
    if mode == 'compiled':
      self.losses[mode] = torch.compile(masked_only)
    self.model.train()
    begin = time.perf_counter()
    shapes = {batch['input_ids'].shape: index for index, batch in reversed(list(enumerate(self.batches)))}
    for index in [*sorted(shapes.values()), 0]:
      self.finish(self.launch(mode, index))
    return {'warm_up_seconds': time.perf_counter() - begin}

  def turn(self, mode: str, seconds: float) -> dict:
    """A Turn's fields, and the peaks of memory: of the process so far, and of the device in this turn."""
    import torch
    self.model.train()
    if self.on_cuda:
      torch.cuda.reset_peak_memory_stats()
    turn = turns.take(lambda i: self.launch(mode, i), self.finish, self.content, seconds, self.on_cuda)
    return dataclasses.asdict(turn) | {
        'peak_rss_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        'peak_device_bytes': torch.cuda.max_memory_allocated() if self.on_cuda else None}

  def about(self) -> dict:
    import torch
    import transformers
    return {'torch': torch.__version__, 'transformers': transformers.__version__, 'threads': torch.get_num_threads(),
            'attention': self.model.config._attn_implementation}


def main() -> None:
  answers = os.fdopen(os.dup(1), 'w')  # only answers go there: what else prints, compilers of torch among it, to stderr
  os.dup2(2, 1)
  os.environ.setdefault('HF_HUB_OFFLINE', '1')
  trainer = TimedPeer(pathlib.Path(sys.argv[1]))
  for line in sys.stdin:
    request = json.loads(line)
    answer = getattr(trainer, request.pop('do'))(**request)
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
  main()
