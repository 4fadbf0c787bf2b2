"""The engines that `--engine` names, and the settings that each must leave as they are.

An engine is one file with an ENGINE in it, and a line here and in corpus.py.
"""

_OF_ONE_PLACE = 'pairs', 'masks', 'dupe_factor', 'first', 'near_duplicates'  # what needs all documents in one place
ENGINES: dict[str, tuple[str, ...]] = {
    'processes': (), 'beam': ('workers', *_OF_ONE_PLACE), 'ray': ('workers', *_OF_ONE_PLACE)}
