"""One entry of the list of planted faults."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    find: str
    replace: str
    tests: str
    sample: bool = False
