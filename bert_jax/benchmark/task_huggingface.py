"""transformers' BertForSequenceClassification fine-tuned on given rows, in a process of its own: a peer of `benchmark
tasks`.

`python -m bert_jax.benchmark.task_huggingface DIRECTORY` reads what task_peers.py wrote there, writes the scores of the
validation rows after each epoch, and prints a line of JSON. It never imports JAX.

R rows, B of a batch, T tokens they are padded to, C scores of a row.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

SETTINGS, ROWS, LOGITS = 'finetune.json', 'rows.npz', 'logits.npz'


class Rows:
  """Rows of a split, padded batch by batch to the longest, as DataCollatorWithPadding does."""

  def __init__(self, arrays, name: str, pad_id: int, device):
    ends = np.cumsum(arrays[f'{name}/lengths'])[:-1]
    self.ids, self.types = (np.split(arrays[f'{name}/{part}'].astype(np.int64), ends) for part in ('ids', 'types'))
    self.labels, self.pad_id, self.device = arrays[f'{name}/labels'], pad_id, device

  def batch(self, numbers) -> tuple[dict, Any]:  # -> {[B T]}, [B]
    import torch
    longest = max(len(self.ids[i]) for i in numbers)
    batch = {'input_ids': np.full((len(numbers), longest), self.pad_id, np.int64),
             'token_type_ids': np.zeros((len(numbers), longest), np.int64),
             'attention_mask': np.zeros((len(numbers), longest), np.int64)}
    for place, i in enumerate(numbers):
      n = len(self.ids[i])
      batch['input_ids'][place, :n], batch['token_type_ids'][place, :n] = self.ids[i], self.types[i]
      batch['attention_mask'][place, :n] = 1
    labels = self.labels[numbers]
    labels = labels.astype(np.int64) if labels.dtype.kind == 'i' else labels
    return {name: torch.from_numpy(x).to(self.device) for name, x in batch.items()}, torch.from_numpy(labels).to(
        self.device)


def tune(directory: pathlib.Path) -> dict[str, float]:
  """Trains, and returns {'examples_per_second'} of training, without evaluating and the first step."""
  import torch
  import transformers
  transformers.utils.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()
  settings = json.loads((directory / SETTINGS).read_text())
  torch.manual_seed(settings['seed'])
  device = torch.device(settings['device'])
  kind: dict[str, Any] = {} if settings['classes'] else {'num_labels': 1}
  model: Any = transformers.BertForSequenceClassification.from_pretrained(directory, dtype=torch.float32, **kind)
  model.to(device)
  with np.load(directory / ROWS) as arrays:
    train, dev = (Rows(arrays, name, settings['pad_id'], device) for name in ('train', 'dev'))
  optimizer = optimizer_of(model, settings)
  schedule = transformers.get_linear_schedule_with_warmup(optimizer, settings['warmup_steps'], settings['steps'])
  loss_of = torch.nn.functional.cross_entropy if settings['classes'] else (
      lambda scores, labels: torch.nn.functional.mse_loss(scores[:, 0], labels))
  narrow = settings['dtype'] == 'bfloat16'
  computing = lambda: torch.autocast(device.type, torch.bfloat16) if narrow else contextlib.nullcontext()
  order, size = np.random.default_rng(settings['seed']), settings['size']
  rows, seconds = 0, 0.0
  found: dict[str, Any] = {}
  for epoch in range(settings['epochs']):
    model.train()
    numbers = order.permutation(len(train.ids))
    for start in range(0, len(numbers), size):
      begin = time.perf_counter()
      inputs, labels = train.batch(numbers[start:start + size])
      optimizer.zero_grad(set_to_none=True)
      with computing():
        loss = loss_of(model(**inputs).logits.float(), labels)
      loss.backward()
      if settings['clip_norm']:
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings['clip_norm'])
      optimizer.step()
      schedule.step()
      float(loss.detach())
      if epoch or start:  # the first step finds cold caches
        rows, seconds = rows + len(labels), seconds + time.perf_counter() - begin
    model.eval()
    with torch.no_grad(), computing():
      scores = [model(**dev.batch(np.arange(start, min(start + size, len(dev.ids))))[0]).logits.float().cpu().numpy()
                for start in range(0, len(dev.ids), size)]
    found[str(epoch)] = np.concatenate(scores)
  np.savez(directory / LOGITS, **found)
  return {'examples_per_second': rows / seconds if seconds else 0.0}


def optimizer_of(model, settings: dict):
  """torch's fused AdamW; biases and LayerNorm do not decay."""
  import torch
  named = list(model.named_parameters())
  plain = lambda name: 'bias' in name or 'LayerNorm' in name
  groups = [{'params': [p for name, p in named if not plain(name)], 'weight_decay': settings['weight_decay']},
            {'params': [p for name, p in named if plain(name)], 'weight_decay': 0.0}]
  return torch.optim.AdamW(groups, lr=settings['learning_rate'], betas=settings['betas'], eps=settings['epsilon'],
                           fused=True)


def main() -> None:
  answers, sys.stdout = sys.stdout, sys.stderr  # stdout has the answer only, whatever else prints
  os.environ.setdefault('HF_HUB_OFFLINE', '1')
  print(json.dumps(tune(pathlib.Path(sys.argv[1]))), file=answers, flush=True)


if __name__ == '__main__':
  main()
