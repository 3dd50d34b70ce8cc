"""What the calls of command.each() returned, on disk: a start after an interruption goes on.

A call's file is named by the hash of all that decides what it returns: the model, the experiments'
own text, the function and its arguments. With another text there is another name, so nothing stale
is taken for good; what cannot be read is simulated again.
"""

import hashlib
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FOLDER = 'calls'
OUTSIDE = (b'.toml', b'component')  # files whose text is in no argument: such a call is not kept


class Kept:
    """The answers of a function under a folder of results."""

    def __init__(self, out: str | Path, function: Callable[..., Any]) -> None:
        from sim.jit import MODEL_DIGEST

        self.folder = Path(out) / FOLDER
        texts = [path.read_bytes() for path in sorted(Path(__file__).parent.glob('*.*'))]
        name = f'{function.__module__}.{function.__qualname__}'
        self.base = hashlib.sha256(b'\0'.join([MODEL_DIGEST.encode(), name.encode(), *texts]))

    def place(self, arguments: Sequence[Any]) -> Path | None:
        """Where the answer to these arguments lies; None: it is not kept."""
        written = pickle.dumps(tuple(arguments))
        if any(word in written for word in OUTSIDE):
            return None
        digest = self.base.copy()
        digest.update(written)
        return self.folder / f'{digest.hexdigest()[:16]}.pickle'

    def find(self, arguments: Sequence[Any]) -> tuple[Any] | None:
        """The answer in a tuple, or None where there is none."""
        place = self.place(arguments)
        try:
            return None if place is None else (pickle.loads(place.read_bytes()),)
        except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError):
            return None

    def save(self, arguments: Sequence[Any], answer: Any) -> None:
        """Whole or not at all."""
        place = self.place(arguments)
        if place is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix('.part')
        part.write_bytes(pickle.dumps(answer))
        part.replace(place)
