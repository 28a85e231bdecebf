"""The faults that scripts/mutation_test.py plants, one at a time; each must turn a test red.

`find` occurs exactly once in `file`. `tests` is a regular expression of ctest names: those that
ought to notice. Faults with `sample` are tried in every run of scripts/test.sh, all of them with
--full.
"""
from compute_faults import COMPUTE_FAULTS
from run_faults import RUN_FAULTS

FAULTS = COMPUTE_FAULTS + RUN_FAULTS
