"""transformers' BertForPreTraining on given weights and batches, in a process of its own: a peer of `benchmark step`.

`python -m bert_jax.benchmark.huggingface DIRECTORY` reads the model and settings that peers.py wrote there, then
answers each line of stdin with a line of JSON. It never imports JAX, so the thread pools of the two do not meet.

B rows, T tokens, P masked positions, D hidden.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import sys
from typing import Any

import numpy as np

from bert_jax.benchmark import turns

SETTINGS_FILE, BATCHES_FILE = 'benchmark.json', 'batches.npz'


def masked_only(model, batch):
  """The loss with the head on the masked positions only, as ours: {[B T], [B P], [B]} -> scalar tensor."""
  import torch
  from torch.nn.functional import cross_entropy
  ids, mask, types = batch['input_ids'], batch['attention_mask'], batch['token_type_ids']
  outputs = model.bert(ids, attention_mask=mask, token_type_ids=types)
  hidden, positions = outputs.last_hidden_state, batch['masked_lm_positions']
  picked = torch.gather(hidden, 1, positions[..., None].expand(-1, -1, hidden.shape[-1])).flatten(0, 1)  # [B P D]
  scores = model.cls.predictions(picked)
  each = cross_entropy(scores.float(), batch['masked_lm_ids'].flatten(), reduction='none')
  weights = batch['masked_lm_weights'].flatten()
  pairs = model.cls.seq_relationship(outputs.pooler_output).float()
  next_sentence = cross_entropy(pairs, batch['next_sentence_labels'])
  return (each * weights).sum() / weights.sum() + next_sentence


def as_shipped(model, batch):
  """BertForPreTraining's own loss, from logits at every token: {[B T], [B]} -> scalar tensor."""
  names = 'input_ids', 'attention_mask', 'token_type_ids', 'labels'
  return model(**{name: batch[name] for name in names}, next_sentence_label=batch['next_sentence_labels']).loss


LOSSES = {'masked': masked_only, 'shipped': as_shipped}


def tensors(batch: dict[str, np.ndarray], device) -> dict:
  """A batch of ours as torch has it: int64 ids, an attention mask, and for `as_shipped` labels, or -100 in them."""
  import torch
  integers = 'input_ids', 'token_type_ids', 'masked_lm_positions', 'masked_lm_ids'
  found = {name: batch[name].astype(np.int64) for name in integers}
  found |= {'attention_mask': (batch['pair_ids'] > 0).astype(np.int64), 'masked_lm_weights': batch['masked_lm_weights'],
            'next_sentence_labels': batch['next_sentence_labels'][:, 0].astype(np.int64)}
  row, slot = np.nonzero(batch['masked_lm_weights'])
  labels = np.full(batch['input_ids'].shape, -100, np.int64)
  labels[row, batch['masked_lm_positions'][row, slot]] = batch['masked_lm_ids'][row, slot]
  return {name: torch.from_numpy(np.array(value)).to(device) for name, value in (found | {'labels': labels}).items()}


class TimedPeer:
  """The model, torch's fused AdamW, and the batches."""

  def __init__(self, directory: pathlib.Path):
    import torch
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settings = json.loads((directory / SETTINGS_FILE).read_text())
    self.device = torch.device(settings['device'])
    self.precision, self.clip = settings['dtype'], settings['clip_norm']
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
    self.content = [(int((batch['pair_ids'] > 0).sum()), len(batch['pair_ids'])) for batch in batches]
    self.batches = [tensors(batch, self.device) for batch in batches]
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
    """{'loss'} of the first batch without dropout."""
    import torch
    self.model.eval()
    with torch.no_grad(), self.computing():
      return {'loss': float(masked_only(self.model, self.batches[0]))}

  def turn(self, mode: str, seconds: float, least: int = turns.LEAST) -> dict:
    """A Turn's fields, and the peak of memory so far. `mode`: a key of LOSSES, or compiled: masked by torch.compile."""
    import torch
    if mode == 'compiled' and mode not in self.losses:
      self.losses[mode] = torch.compile(masked_only)
    self.model.train()
    on_cuda = self.device.type == 'cuda'
    turn = turns.take(lambda i: self.step(self.losses[mode], i), float, self.content, seconds, on_cuda, least)
    return dataclasses.asdict(turn) | {'peak_rss_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                                       'peak_device_bytes': torch.cuda.max_memory_allocated() if on_cuda else None}

  def about(self) -> dict:
    import torch
    import transformers
    return {'torch': torch.__version__, 'transformers': transformers.__version__, 'threads': torch.get_num_threads()}


def main() -> None:
  answers, sys.stdout = sys.stdout, sys.stderr  # stdout has answers only, whatever else prints
  os.environ.setdefault('HF_HUB_OFFLINE', '1')
  trainer = TimedPeer(pathlib.Path(sys.argv[1]))
  for line in sys.stdin:
    request = json.loads(line)
    answer = getattr(trainer, request.pop('do'))(**request)
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
  main()
