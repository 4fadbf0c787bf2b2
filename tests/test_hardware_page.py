"""docs/hardware.md is what its figures say: days and costs of all steps, cells of what does not fit, microbatches."""

import dataclasses
import pathlib

from bert_jax import chips, recipes
from launch import hardware_page as hardware
from launch.plan import topology

FILE = pathlib.Path(hardware.__file__).parents[1] / 'docs' / 'hardware.json'
ROWS = hardware.read(FILE)
ROW = hardware.Row('base', 'h100:1', 'NVIDIA H100', 1, 256, 128, 2, 128, False, 40 * 10**9, 60 * 10**9, 0.5, 0.1, 900,
                   'roofline', '1.0')


def test_the_page_is_of_its_figures():
  page = FILE.with_suffix('.md').read_text(encoding='utf-8')
  assert page == hardware.page(ROWS), f'python -m launch.hardware_page page {FILE} > docs/hardware.md'


def test_figures_are_of_recipes_and_machines_as_they_are():
  known = {machine.topology for machine in hardware.MACHINES} | {hardware.LAPTOP}
  for row in ROWS:
    config = recipes.recipe(row.recipe)
    sizes = {config.batch.sequence_length: config.batch.size, config.long.sequence_length: config.batch.size}
    assert row.machine in known and sizes[row.length] == row.rows
    assert row.at_once * row.microbatches * row.chips == row.rows
    assert row.seconds is None or row.needed_bytes <= row.memory_bytes
  both = {(row.recipe, row.machine): row.steps for row in ROWS}
  for recipe, machine in both:
    steps = sum(row.steps for row in ROWS if (row.recipe, row.machine) == (recipe, machine))
    assert steps == recipes.recipe(recipe).run.steps
  gpus = [machine.topology.partition(':')[0] for machine in hardware.MACHINES if ':1' in machine.topology]
  assert all(name in chips.GPUS for name in gpus) and topology.listed()


def test_a_run_is_all_its_steps_and_costs_its_chips():
  two = [ROW, dataclasses.replace(ROW, length=512, steps=100, seconds=4.0)]
  hours = (900 * 0.5 + 100 * 4) / 3600
  assert hardware.cell(two) == f'{hours:.1f} hours, $1'
  slice_of_8 = [dataclasses.replace(row, machine='v5e:2x4', chips=8, steps=row.steps * 1000) for row in two]
  days = hours * 1000 / 24
  assert hardware.cell(slice_of_8) == f'{days:.1f} days, ${days * 24 * 8 * 1.2:,.0f}'
  assert hardware.cell([dataclasses.replace(row, machine=hardware.LAPTOP) for row in two]) == f'{hours:.1f} hours'
  assert hardware.cell([ROW, dataclasses.replace(ROW, seconds=None)]) == 'does not fit'
  assert hardware.cell([]) == 'not tried'


def test_a_line_says_how_it_is_known():
  assert hardware.line(ROW).endswith('| 500 ms | 65,536 | estimated, by roofline |')
  assert 'estimated, by cycles, a loop' in hardware.line(dataclasses.replace(ROW, by='cycles', loop=True))
  assert hardware.line(dataclasses.replace(ROW, by='measured')).endswith('| measured |')
  assert 'does not fit |  |' in hardware.line(dataclasses.replace(ROW, seconds=None))


def test_what_is_found_again_takes_the_place_of_the_old(tmp_path):
  file = tmp_path / 'hardware.json'
  hardware.keep(file, [ROW])
  other = dataclasses.replace(ROW, recipe='tiny')
  hardware.keep(file, [other])
  hardware.keep(file, [dataclasses.replace(ROW, seconds=9.0)])
  assert [(row.recipe, row.seconds) for row in hardware.read(file)] == [('tiny', 0.5), ('base', 9.0)]
