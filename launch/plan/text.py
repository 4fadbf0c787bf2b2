"""What `bert-jax plan` found out, in lines for people. `f` is a step.Figures by name."""

import collections
import textwrap

from bert_jax import chips
from launch.plan import roofline


def describe(recipe: str, result: dict) -> str:
  """Every length that was planned, their sum, and what a search tried."""
  planned = [result, *result.get('others', ())]
  parts = [describe_one(recipe, f) for f in planned]
  if len(planned) > 1 and all(f['days'] is not None for f in planned):
    cost = f', {sum(f["cost"] for f in planned):,.2f} for the chip-hours' if result['cost'] is not None else ''
    steps, length = (sum(f[name] for f in planned) for name in ('steps', 'days'))
    parts.append(f'the whole run: {steps:,} steps in {days(length)}{cost}')
  if 'search' in result:
    parts.append('the best of what was tried, by tokens a day:\n' + found(result['search']))
  return '\n\n'.join(parts)


def describe_one(recipe: str, f: dict) -> str:
  """One length: what a chip holds, does and sends."""
  parts = f' in {f["microbatches"]} microbatches' if f['microbatches'] > 1 else ''
  title = (f'{recipe}: {f["steps"]:,} steps of {f["batch"]:,} rows of {f["sequence_length"]} on '
           f'{f["topology"] or "this machine"}: {f["chips"]:,} {f["device_kind"]}, {f["batch"] / f["chips"]:g} rows '
           f'each{parts}; mesh {mesh_name(f)}, remat {f["remat"]}. Figures of one chip:')
  compiled = f'{f["compile_seconds"]:.1f} s, after {f["lower_seconds"]:.1f} s of tracing' + (
      ', by an earlier plan, whose program was kept' if f['kept'] else '')
  rows = memory(f) + microbatches(f) + work(f) + layers(f) + [('compiled in', compiled)]
  return '\n'.join([title, *(f'{name:<15}{text}' for name, text in rows), *collectives(f), *dearest(f)])


def layers(f: dict) -> list[tuple[str, str]]:
  """Whether there is a loop over layers, and what it would be otherwise."""
  named = lambda unroll: 'a loop over layers' if unroll == 1 else f'{unroll} layers unrolled'
  g = f.get('otherwise')
  if not g:
    return [('layers', named(f['unroll']))]
  step = milliseconds(g['estimated_step_seconds']) if g['estimated_step_seconds'] else '?'
  fits = '' if g['fits'] is not False else ', does not fit'
  return [('layers', f'{named(f["unroll"])} (model.unroll auto); {named(g["unroll"])}: step {step}, memory '
           f'{gigabytes(g["needed_bytes"])}{fits}')]


def microbatches(f: dict) -> list[tuple[str, str]]:
  """In how many parts a batch goes through, where that was chosen."""
  if not f.get('microbatches_chosen'):
    return []
  rows = f['batch'] // f['microbatches'] / (f['mesh']['data'] * f['mesh']['fsdp'])
  most = 'the fewest that fit' if f['fits'] else 'the most that are possible'
  return [('microbatches', f'{f["microbatches"]} of {rows:g} rows a device, {most} (run.microbatches auto)')]


def memory(f: dict) -> list[tuple[str, str]]:
  """Whether it fits, and the bytes by kind."""
  fits = {True: 'fits', False: 'DOES NOT FIT', None: 'how much there is, is not known'}[f['fits']]
  share = f' ({f["memory_share"]:.0%} of a chip, by {chips.SHARE[0]})' if f['memory_share'] else ''
  return [
      ('memory', f'{gigabytes(f["needed_bytes"])} of {gigabytes(f["memory_bytes"])}{share}: {fits}'),
      *([('  would fit', ways(f))] if f['fits'] is False else []),
      ('  arguments', f'{gigabytes(f["argument_bytes"])}: parameters {gigabytes(f["parameter_bytes"])}, optimizer '
                      f'{gigabytes(f["optimizer_bytes"])}, batch {gigabytes(f["batch_bytes"])}'),
      ('  temporaries', gigabytes(f['temporary_bytes']))]


def ways(f: dict) -> str:
  """What to change of a step that does not fit."""
  count = f['fitting_microbatches']
  others = 'fewer rows (--batch.size), more chips (--topology)' + (
      '' if f['remat'] == 'full' else ', or to keep less (--model.remat full)')
  return f'--run.microbatches {count}, by an estimate from these figures; else {others}' if count else others


def work(f: dict) -> list[tuple[str, str]]:
  """FLOPs, the time of a step and of the run."""
  unknown = 'not known, as it does not fit' if f['fits'] is False else 'not known of this kind of device'
  compiled, step = f['flops_compiled'], f['estimated_step_seconds']
  rows = [('FLOPs a step', f'{f["flops_formula"]:.4g} by formula, as compiled '
           + (f'{compiled:.4g} ({compiled / f["flops_formula"]:.3f} times)' if compiled else unknown))]
  if f['loops_counted_once']:
    rows.append(('TOO LITTLE', f'loops whose trips could not be told count once: {", ".join(f["loops_counted_once"])}'))
  if not step:
    return [*rows, ('step', unknown)]
  cost = f', {f["cost"]:,.2f} for the chip-hours' if f['cost'] is not None else ''
  return [
      *rows, *(by_roofline(f) if f['roofline'] else by_cycles(f)),
      ('run', f'{days(f["days"])} for these {f["steps"]:,} steps, {billions(f["tokens_per_day"])} tokens a day, '
              f'padding among them{cost}')]


def by_cycles(f: dict) -> list[tuple[str, str]]:
  """The time of a step on TPU."""
  step = f['estimated_step_seconds']
  return [
      ('step', f'{milliseconds(step)} by the compiler\'s cycles, {percent(f["kernel_seconds"] / step)} of it added for '
               f'{f["kernels"]} custom kernels; ideal {milliseconds(f["ideal_step_seconds"])}, '
               f'MFU {percent(f["estimated_mfu"])}'),
      ('  not in it', f'{milliseconds(f["exposed_collective_seconds"])} at least of collectives that nothing runs '
                      f'beside, about {milliseconds(f["unestimated_seconds"])} of gathers, scatters and sorts'),
      *second_opinion(f['second_opinion'])]


def second_opinion(found: dict | None) -> list[tuple[str, str]]:
  """The least time of a step on TPU, and where the compiler's differs most from it."""
  if found is None:
    return []
  limits = ', '.join(f'{name} {milliseconds(seconds)}' for name, seconds in found['limits'].items())
  differ = [('  differ on', f'{milliseconds(item["seconds"])} by cycles, {milliseconds(item["least"])} least: '
                            f'{item["op_name"]}') for item in found['differ']]
  assumed = f'products at the peak, bytes at {roofline.SHARE_OF_RATE:.0%} of the memory rate, vector operations'
  return [('  at least', f'{milliseconds(found["seconds"])} by a roofline: {limits}; of each kernel the longest of '
                         f'{assumed}'),
          *differ]


def by_roofline(f: dict) -> list[tuple[str, str]]:
  """The time of a step on GPU."""
  step, ideal, of = f['estimated_step_seconds'], f['ideal_step_seconds'], f['roofline']
  exposed = f['exposed_collective_seconds']
  kinds = [(kind, of[kind]) for kind in roofline.KINDS if of[kind]['kernels']]
  return [
      ('step', f'{milliseconds(step)} at least, by a roofline; ideal {milliseconds(ideal)}, {step / ideal:.2f} times '
               f'that, MFU {percent(f["estimated_mfu"])}'),
      ('  assumed', f'{of["share_of_peak"]:.0%} of the peak, {of["share_of_memory_rate"]:.0%} of the memory rate, '
                    f'{of["launch_seconds"] * 1e6:g} µs a launch'),
      *((f'  {kind}', f'{found["kernels"]:,} kernels, {milliseconds(found["seconds"])}, {found["flops"] / 1e9:,.1f} '
                      f'GFLOP, {gigabytes(found["bytes"])} moved') for kind, found in kinds),
      ('  not in it', f'{milliseconds(exposed)} at least of collectives that nothing runs beside' if exposed is not None
       else 'collectives, as it is not known how fast hosts with such chips are joined')]


def collectives(f: dict) -> list[str]:
  """What crosses between chips: bytes by kind, and the large ones, each line for all that are alike."""
  if f['collectives'] is None:
    return []
  total = ', '.join(f'{kind} {megabytes(size)}' for kind, size in f['collective_bytes'].items()) or 'none'
  alike = collections.Counter()
  for item in f['collectives']:
    size = item['bytes'] // item['times']
    alike[item['kind'], size, item['asynchronous'], item['devices'], item['op_name']] += item['times']
  rows = [(kind, megabytes(size), 'asynchronous' if beside else 'waited for', str(times), str(devices or 'all'), name)
          for (kind, size, beside, devices, name), times in alike.items()]
  return [f'collectives    {total}; bytes are of whole operands, of a gather the result'
          + ('. Of those of 1 MB and more, one:' if rows else ''), *table(('', '', '', 'times', 'devices', ''), rows)]


def dearest(f: dict) -> list[str]:
  """What takes longest, by the name that JAX gave it."""
  step = f['estimated_step_seconds']
  moved = lambda item: (megabytes(item['bytes']),) if f['roofline'] else ()
  rows = [(milliseconds(item['seconds']), percent(item['seconds'] / step), f'{item["count"]:,}', *moved(item),
           item['op_name']) for item in f['dearest'] or ()]
  titles = ('', 'of the step', 'times', *(('moved',) if f['roofline'] else ()), '')
  return ['dearest, by name:', *table(titles, rows)] if rows else []


def found(tried: list[dict]) -> str:
  """What a search tried, a line each."""
  def speed(f):
    if not f['fits']:
      return 'does not fit', '', ''
    return milliseconds(f['estimated_step_seconds']), percent(f['estimated_mfu']), billions(f['tokens_per_day'])

  rows = [(f'{f["batch"] / f["chips"]:g}', str(f['microbatches']), f['remat'], mesh_name(f),
           gigabytes(f['needed_bytes']), *speed(f)) for f in tried]
  titles = 'rows a chip', 'microbatches', 'remat', 'mesh', 'memory', 'step', 'MFU', 'tokens a day'
  return '\n'.join(table(titles, rows))


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
  """Columns as wide as their widest cell; nothing without rows."""
  if not rows:
    return []
  widths = [max(map(len, column)) for column in zip(titles, *rows)]
  return ['  ' + '  '.join(f'{cell:<{width}}' for cell, width in zip(row, widths)).rstrip() for row in [titles, *rows]]


def topologies(rows: list[dict]) -> str:
  """The kinds of chips that a plan can be for."""
  cells = [(row['topology'], row['device_kind'], f'{row["peak_flops"] / 1e12:,.4g} TFLOP/s',
            gigabytes(row['memory_bytes']), f'{row["memory_bytes_per_second"] / 1e9:,.0f} GB/s',
            f'{row["interconnect_bytes_per_second"] / 1e9:,.0f} GB/s') for row in rows]
  titles = '--topology', 'chip', 'bfloat16', 'memory', 'its rate', 'links, one way'
  named = [f'{row["topology"].partition(":")[0]}: {"; ".join(row["clouds"])}' for row in rows if row['clouds']]
  wrapped = [f'  {part}' for line in named
             for part in textwrap.wrap(line, 116, subsequent_indent=4 * ' ', break_on_hyphens=False)]
  return '\n'.join([*table(titles, cells), 'Or by a name of a cloud, of machines with GPUs with how many they have; '
                    'NAME:2 are two of them:', *wrapped])


def mesh_name(f: dict) -> str:
  return ' x '.join(f'{axis} {size}' for axis, size in f['mesh'].items())


def gigabytes(size: float | None) -> str:
  return '?' if size is None else f'{size / 1e9:.2f} GB'


def megabytes(size: float) -> str:
  return f'{size / 1e6:,.1f} MB'


def milliseconds(value: float) -> str:
  return f'{value * 1e3:,.2f} ms'


def percent(value: float) -> str:
  return f'{value:.1%}'


def billions(value: float) -> str:
  return f'{value / 1e9:,.2f} billion'


def days(value: float) -> str:
  return f'{value:,.2f} days' if value >= 1 else f'{value * 24:,.2f} hours'
